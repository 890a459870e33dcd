"""The best model of a run on its test split, as scripts/evaluate.py measures it: metrics, figures, worst mistakes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import Tensor

from lossfit.errors import UserError
from lossfit.inference import calibration, evaluation
from lossfit.inference.mistakes import worst_mistakes
from lossfit.inference.saliency import saliency
from lossfit.inference.trained_model import TrainedModel, load
from lossfit.plain_values import is_finite
from lossfit.report.confusion import Confusion, confusion
from lossfit.report.pictures import Picture, pictures
from lossfit.report.svg import drawing, svg
from lossfit.runs import checkpoints, names
from lossfit.system import files
from lossfit.tasks import metric_names
from lossfit.tasks.figures import reliability_figure

MISTAKES = 18  # images
OF_ANOTHER_FORM = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)  # what such a file leads to
DRAWN_HERE = ("confusion",)  # figures of tasks that the page draws itself, from the counts


@dataclass(frozen=True)
class Calibration:
    """The temperature that evaluate.py --calibrate fitted; what it changed on the validation split, by metric."""

    temperature: float
    changes: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Measured:
    """What is known of a model on a split.

    about: in words. metrics: of the whole split, by name, a number or one with its interval. rows: the metrics of each
    class or value. units: of the values, by name. figures: of the task, by name. missing: what is not here, and why.
    """

    split: str
    about: str
    metrics: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    units: dict[str, str] = field(default_factory=dict)
    confusion: Confusion | None = None
    figures: dict[str, Markup] = field(default_factory=dict)
    mistakes: list[Picture] = field(default_factory=list)
    calibration: Calibration | None = None
    missing: list[str] = field(default_factory=list)


def measured(folder: Path, split: str, data: str | None = None, trust_code: bool = False) -> Measured:
    """Return what is known of the best checkpoint of a run folder.

    The metrics are those of evaluation_<split>.json if it is there and of this checkpoint. data: where the files of the
    data are now. Without the checkpoint or the data the result has what the files of the folder say.
    """
    stored = _stored(folder, split)
    if not any((folder / name).exists() for name in (names.BEST, names.LAST)):
        return _without_model(stored, split, "The run has no checkpoint, so its model cannot be measured.")
    try:
        model = load(folder, trust_code=trust_code)
    except UserError as error:
        return _without_model(stored, split, f"The model cannot be used: {_line(error)}.")
    stored = stored if _is_of(stored, folder, model) else {}
    try:
        images, target = evaluation.split(model, split, data, folder)
        outputs = evaluation.outputs_of(model, images)
    except (UserError, OSError, RuntimeError) as error:
        return _without_model(stored, split, f"The images of the {split} split cannot be used: {_line(error)}.")
    task = model.of_task
    if stored and (stored["samples"], stored["rows"]) != (len(target), task.rows):
        stored = {}
    missing: list[str] = []
    with drawing():
        try:
            found = stored or task.measure(outputs[None], target)
            figures = task.report_figures(found, outputs, target)
        except OF_ANOTHER_FORM:
            if not stored:
                raise
            stored, found = {}, task.measure(outputs[None], target)
            figures = task.report_figures(found, outputs, target)
    return Measured(
        split=split,
        about=f"{split} split, {len(target):,} images, weights of epoch {model.epochs}{_units(model)}{_when(stored)}",
        metrics=_metrics(found),
        rows=_worst_first(found[task.rows]),
        units={name: unit for name, unit in zip(model.names, model.units, strict=False) if unit},
        confusion=_confusion(found),
        figures={name: svg(figure, name) for name, figure in figures.items() if name not in DRAWN_HERE},
        mistakes=_mistakes(model, images, outputs, target, missing),
        calibration=_calibration(folder, model, missing),
        missing=missing,
    )


def _without_model(stored: Mapping[str, Any], split: str, reason: str) -> Measured:
    """Return what an earlier evaluation has."""
    if not stored:
        return Measured(split, "", {}, {}, missing=[reason])
    figures = {}
    if stored.get("calibration"):
        with drawing():
            figures["reliability"] = svg(reliability_figure(stored["calibration"], stored["ece"]), "reliability")
    return Measured(
        split=split,
        about=f"{split} split, {stored['samples']:,} images, weights of epoch {stored.get('epochs')}{_when(stored)}",
        metrics=_metrics(stored),
        rows=_worst_first(_rows(stored)),
        confusion=_confusion(stored),
        figures=figures,
        missing=[reason],
    )


def _stored(folder: Path, split: str) -> dict[str, Any]:
    """Return evaluation_<split>.json without a temperature; empty if it is not there or of another form."""
    try:
        found = json.loads(files.read_text(folder / names.EVALUATION.format(split=split)))
        _check(found)
    except (OSError, RecursionError, *OF_ANOTHER_FORM):
        return {}
    return found if found.get("temperature") in (None, 1) else {}


def _is_of(stored: Mapping[str, Any], folder: Path, model: TrainedModel) -> bool:
    """Whether an evaluation is of the checkpoint that is loaded: of its name and epoch, and younger than its file."""
    file = checkpoints.find(folder)
    evaluation_file = folder / names.EVALUATION.format(split=stored.get("split"))
    return bool(
        stored
        and stored.get("epochs") == model.epochs
        and Path(str(stored.get("checkpoint"))).name == file.name
        and evaluation_file.stat().st_mtime >= file.stat().st_mtime
    )


def _metrics(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in metric_names.evaluation_names() if found.get(name) is not None}


def _rows(stored: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rows of an evaluation, which stand under the key that its task chose."""
    rows: dict[str, dict[str, Any]] = stored[stored["rows"]]
    return rows


def _check(stored: Mapping[str, Any]) -> None:
    """Raise one of OF_ANOTHER_FORM for an evaluation of another form than evaluate.py's.

    It may come from anyone: what is shown as a number must be one.
    """
    rows = list(_rows(stored).values())
    if not rows or not rows[0] or any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError("the rows of its table differ in their columns")
    values = [*_metrics(stored).values(), *(value for row in rows for value in row.values())]
    for found in values:
        parts = [found[part] for part in ("value", "low", "high")] if isinstance(found, dict) else [found]
        if not all(part is None or is_finite(part) for part in parts):
            raise ValueError("a metric is no number")
    if not isinstance(stored["samples"], int):
        raise ValueError("samples is no number")
    bins = stored.get("calibration") or ()
    if not all(part is None or is_finite(part) for one in bins for part in one.values()):
        raise ValueError("the calibration has no numbers")
    _confusion(stored), reliability_figure(bins, stored["ece"]) if bins else None


def _worst_first(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sort rows by their first metric, the worst first; those without it are last."""
    key = next(iter(next(iter(rows.values()))))
    sign = -1 if metric_names.direction_of(key) == "min" else 1

    def place(name: str) -> tuple[bool, float]:
        value = rows[name].get(key)
        number = value["value"] if isinstance(value, dict) else value
        return number is None, sign * (number or 0.0)

    return {name: rows[name] for name in sorted(rows, key=place)}


def _confusion(found: Mapping[str, Any]) -> Confusion | None:
    counts = found.get("confusion")
    return confusion(counts, list(found["classes"])) if counts else None


def _calibration(folder: Path, model: TrainedModel, missing: list[str]) -> Calibration | None:
    file = folder / names.CALIBRATION
    if not file.exists():
        return None
    try:
        temperature = calibration.read(folder, model.of_task)
        found = json.loads(file.read_text(encoding="utf-8"))
        pairs = {key: (found[key]["before"], found[key]["after"]) for key in ("nll", "ece")}
    except UserError as error:
        missing.append(f"The temperature is not shown: {_line(error)}.")
        return None
    except (KeyError, TypeError):  # of a file that was changed by hand
        pairs = {}
    return Calibration(temperature, {key: pair for key, pair in pairs.items() if all(map(is_finite, pair))})


def _units(model: TrainedModel) -> str:
    """Say in which units the values are, as `, angle in degrees`."""
    return "".join(f", {name} in {unit}" for name, unit in zip(model.names, model.units, strict=False) if unit)


def _when(stored: Mapping[str, Any]) -> str:
    when = str(stored.get("evaluated", ""))[:10]
    return f", evaluated on {when}" if when else ""


def _mistakes(model: TrainedModel, images: Any, outputs: Tensor, target: Tensor, missing: list[str]) -> list[Picture]:
    found = worst_mistakes(model.of_task, images, outputs, target, MISTAKES)
    if not found:
        return []
    import torch

    maps = saliency(model, torch.stack([one.image for one in found]), torch.tensor([one.output for one in found]))
    if maps is None:
        missing.append('Where the model looks is not shown: it needs captum (pip install -e ".[report]").')
    return pictures(found, maps)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
