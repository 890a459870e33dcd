"""From the texts of targets to a task and numbers: which task they are for, the classes, the values.

The task is inferred from the first rows alone, so that a table's task is the same whether all of it is read or not.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.folder.samples import Samples
from lossfit.errors import counted, did_you_mean, first_ten
from lossfit.plain_values import is_name

TaskName = Literal["classification", "multilabel", "regression"]

ROWS = 1000  # from which the task is inferred
SEVERAL = ";"  # between the classes of one image
UNIT = re.compile(r"(.*\S)\s*\[([^\[\]]*)\]")  # age [years]
MAYBE_A_COMMA = re.compile(r"[-+]?\d+(,\d+)?")  # 0,5 or 3
LARGEST = 3.4e38  # of float32


def infer(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> TaskName:
    """Return the task of a table's targets. Raises DataError if its columns go with none."""
    for i, name in enumerate(columns):
        comma = next((row[i] for row in cells if "," in row[i]), None)
        if comma and all(MAYBE_A_COMMA.fullmatch(row[i]) for row in cells):
            raise DataError(
                f"column {name!r} has numbers with a comma, such as {comma!r}: write them with a point, or take "
                f"them as classes with data.task=classification"
            )
    numbers = [[_number(row[i]) is not None for row in cells] for i in range(len(columns))]
    if len(columns) > 1:
        texts = [name for name, found in zip(columns, numbers, strict=True) if sum(found) * 2 < len(found)]
        if texts:
            raise DataError(
                f"target_columns must be one column of classes or only columns of numbers, got {first_ten(columns)}, "
                f"of which {first_ten(texts)} {'has' if len(texts) == 1 else 'have'} texts: choose with "
                f"data.target_columns=[{next(name for name in columns)}]"
            )
        return "regression"
    if cells and sum(numbers[0]) * 2 >= len(cells):
        return "regression"
    return "multilabel" if any(SEVERAL in row[0] for row in cells) else "classification"


def remark(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str | None:
    """Return a line for targets that are taken as values, and might be meant as classes."""
    values = {text for row in cells for text in row}
    if len(columns) > 1 and values <= {"0", "1"}:
        return (
            f"{first_ten(columns)} hold only 0 and 1, and are taken as values: data.task=multilabel makes them classes"
        )
    few = len(values) <= max(2, min(100, len(cells) // 10))
    if len(columns) == 1 and few and all(re.fullmatch(r"-?\d+", text) for text in values):
        return (
            f"{columns[0]} holds {len(values)} different whole numbers, and they are taken as values: "
            f"data.task=classification makes them classes"
        )
    return None


def class_order(names: Sequence[str]) -> list[str]:
    """Return classes in their order: by number if all are numbers, else as text."""
    names = sorted(set(names))
    numbers = {name: _number(name) for name in names}
    return names if None in numbers.values() else sorted(names, key=lambda name: (numbers[name] or 0.0, name))


def classes(samples: Samples, task: TaskName, wanted: Sequence[str | int] | None = None) -> list[str]:
    """Return the classes of targets; those in `wanted`, in its order, if it is not None."""
    if task == "multilabel" and len(samples.columns) > 1:
        found = list(samples.columns)
    else:
        found = class_order([name for row in samples.cells for name in labels(row[0], task)])
    strange = [name for name in found if not is_name(name)]
    if strange:
        raise DataError(f"class names must be printable and have at most 200 characters, got {first_ten(strange)}")
    if wanted is not None:
        for name in map(str, wanted):
            if name not in found:
                raise DataError(f"classes={name}: there is no such class{did_you_mean(name, found)}")
        if len({*map(str, wanted)}) < len(wanted):
            raise DataError(f"classes must be different, got {list(wanted)}")
        found = [str(name) for name in wanted]
    if len(found) < 2:
        raise DataError(
            f"there is only {counted(found, 'class', 'classes')} ({first_ten(found)}): at least two are needed"
        )
    return found


def labels(cell: str, task: TaskName) -> list[str]:
    """Return the classes in a cell of one column."""
    if task == "classification":
        return [cell]
    return list(dict.fromkeys(text for part in cell.split(SEVERAL) if (text := part.strip())))


def check_classes(samples: Samples) -> None:
    """Raise DataError for images of a table that have not one class."""
    if samples.where is None:
        return
    if len(samples.columns) > 1:
        raise DataError(
            f"task=classification needs one column of classes, got {first_ten(samples.columns)}: choose with "
            f"data.target_columns=[{samples.columns[0]}]"
        )
    none = [samples.told(i) for i, row in enumerate(samples.cells) if not row[0]]
    if none:
        raise DataError(
            f"{samples.source}: column {samples.columns[0]!r} has {counted(none, 'empty cell')} ({first_ten(none)}): "
            f"each image needs a class; with data.task=multilabel, an empty cell is an image of no class"
        )
    several = [f"{samples.told(i)}: {row[0]}" for i, row in enumerate(samples.cells) if SEVERAL in row[0]]
    if several:
        raise DataError(
            f"{samples.source}: column {samples.columns[0]!r} has {counted(several, 'image')} of several classes "
            f"({first_ten(several)}): data.task=multilabel takes them"
        )


def class_numbers(samples: Samples, names: Sequence[str]) -> Tensor:
    """Return the class of each image, (N,) int64."""
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[row[0]] for row in samples.cells], dtype=torch.int64)


def class_sets(samples: Samples, names: Sequence[str]) -> Tensor:
    """Return which classes each image has, (N, C) float32 of 0 and 1."""
    number = {name: i for i, name in enumerate(names)}
    target = torch.zeros(len(samples), len(names))
    if len(samples.columns) > 1:
        place = [samples.columns.index(name) for name in names]
        for i, row in enumerate(samples.cells):
            for k, cell in enumerate([row[j] for j in place]):
                if _number(cell) not in (0, 1):
                    raise DataError(
                        f"task=multilabel with several columns needs 0 or 1 in each, got {cell!r} ({samples.told(i)}, "
                        f"column {names[k]!r})"
                    )
                target[i, k] = float(cell)
        return target
    for i, row in enumerate(samples.cells):
        for name in labels(row[0], "multilabel"):
            if name in number:
                target[i, number[name]] = 1
    return target


def values(samples: Samples) -> Tensor:
    """Return the numbers of each image, (N, D) float32."""
    wrong = [
        f"{samples.told(i)}: {name} = {cell!r}"
        for i, row in enumerate(samples.cells)
        for name, cell in zip(samples.columns, row, strict=True)
        if _number(cell) is None
    ]
    if wrong:
        remedy = "; data.task=classification takes them as classes" if len(samples.columns) == 1 else ""
        raise DataError(
            f"{samples.source}: {first_ten(samples.columns)} has {counted(wrong, 'cell')} without a finite number "
            f"({first_ten(wrong)}): correct them, with a point for decimals{remedy}"
        )
    return torch.tensor([[float(cell) for cell in row] for row in samples.cells], dtype=torch.float32)


def names_and_units(columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the name and the unit of each value: `age [years]` is age in years."""
    matches = [UNIT.fullmatch(name) for name in columns]
    pairs = [(m[1], m[2].strip()) if m else (name, "") for m, name in zip(matches, columns, strict=True)]
    names = [name for name, _ in pairs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"the columns of values must have different names without their units, got {first_ten(twice)}")
    return names, [unit for _, unit in pairs]


def _number(text: str) -> float | None:
    """Return a finite number that float32 has, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < LARGEST and "_" not in text else None
