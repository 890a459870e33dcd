"""From data.dir and data.table to the images of a run and their task."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from lossfit.data.dataset_files import DataError
from lossfit.data.folder import targets
from lossfit.data.folder.samples import Samples
from lossfit.data.folder.scanning import check_is_folder, scan
from lossfit.data.folder.table import Table
from lossfit.data.folder.targets import TaskName
from lossfit.errors import first_ten

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """Which images and targets are wanted: the arguments of FolderDataModule with these names."""

    dir: str
    table: str | None = None
    path_column: str | None = None
    target_columns: Sequence[str] | None = None
    task: TaskName | None = None

    def open_table(self) -> Table | None:
        """Return the table with its header read; None for folders. Raises DataError for options that do not go."""
        check_is_folder(Path(self.dir))
        if self.table is not None:
            return Table(Path(self.dir), self.table, self.path_column, self.target_columns)
        for key in ("path_column", "target_columns"):
            if (value := getattr(self, key)) is not None:
                raise DataError(f"{key}={value} names a column, and there is no table: give data.table=FILE.csv too")
        if self.task not in (None, "classification"):
            raise DataError(
                f"task={self.task} needs a table of targets, data.table=FILE.csv: folders give each image one class"
            )
        return None

    def task_name(self, table: Table | None) -> TaskName:
        """Return the task that was given, or that of the first rows of the table."""
        if self.task is not None:
            return self.task
        return "classification" if table is None else targets.infer(table.columns, table.targets(targets.ROWS))

    def read(self) -> tuple[Samples, TaskName]:
        """Return all images and their task."""
        table = self.open_table()
        task = self.task_name(table)
        samples = scan(Path(self.dir)) if table is None else table.samples()
        if task == "regression" and self.task is None and (line := targets.remark(samples.columns, samples.cells)):
            log.info("%s: %s", self.table, line)
        return samples, task


def with_classes(samples: Samples, task: TaskName, wanted: Sequence[str | int] | None) -> tuple[Samples, list[str]]:
    """Return the classes, those in `wanted` if it is not None, and the images that are of them."""
    if task == "classification":
        targets.check_classes(samples)
    names = targets.classes(samples, task, wanted)
    if task == "multilabel" or wanted is None:
        return samples, names
    return samples.kept([i for i, cells in enumerate(samples.cells) if cells[0] in names]), names


def target_of(samples: Samples, task: TaskName, names: Sequence[str]) -> Tensor:
    """Return the target of each image, in the form of the task."""
    if task == "classification":
        return targets.class_numbers(samples, names)
    return targets.class_sets(samples, names) if task == "multilabel" else targets.values(samples)


def check_counts(samples: Samples, names: Sequence[str]) -> None:
    """Raise DataError for classes of a classification that have too few images."""
    counts = Counter(cells[0] for cells in samples.cells)
    least = 1 if samples.given is not None else 2
    few = [name for name in names if counts[name] < least]
    if few:
        number = "no image that can be read" if least == 1 else "fewer than two images"
        raise DataError(
            f"{len(few):,} classes have {number} ({first_ten(few)}): add images, or name the others in data.classes"
        )


def check_splits(splits: Sequence[str], labels: Sequence[Sequence[str]], names: Sequence[str], given: bool) -> None:
    """Compare the classes of the splits. labels: of each image.

    Raises DataError for a class that the user's own val or test has and train has not; warns of others.
    """
    found = {split: {n for its, row in zip(splits, labels, strict=True) if its == split for n in row} for split in
             ("train", "val", "test")}  # fmt: skip
    unknown = {split: [name for name in names if name in found[split] - found["train"]] for split in ("val", "test")}
    for split, classes in unknown.items():
        if classes and given:
            raise DataError(
                f"{split} has {len(classes):,} classes that train has no image of: {first_ten(classes)}: move some of "
                f"their images to train, or name the other classes in data.classes"
            )
    for split, has in found.items():
        if lacking := [name for name in names if name not in has]:
            log.warning("%s has no image of %s", split, first_ten(lacking))


def without_unreadable(samples: Samples, errors: dict[int, str], skip: bool) -> tuple[Samples, list[int]]:
    """Return the readable images, and their numbers. Raises DataError if some are not, and none are to be skipped."""
    readable = [i for i in range(len(samples)) if i not in errors]
    if errors and not skip:
        told = [os.path.relpath(text, samples.root) if False else text for _, text in sorted(errors.items())]
        raise DataError(
            f"{len(errors):,} of {len(samples):,} images cannot be read: {first_ten(told)}; replace or remove them, or "
            f"leave them out with data.skip_unreadable=true"
        )
    if not readable:
        raise DataError(f"none of the {len(samples):,} images can be read: {first_ten(list(errors.values()))}")
    return (samples.kept(readable) if errors else samples), readable


def as_pool(samples: Samples, pool: Sequence[int]) -> Samples:
    """Return the images with these numbers, without the user's splits."""
    return replace(samples.kept(pool), given=None)
