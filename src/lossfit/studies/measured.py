"""What a study measures of a finished run: the metrics of its result.json, and more from its checkpoints.

A name is that of result.json, `test/acc`, which is of the best checkpoint, or of one of its timings, `fit_s`. Before it
may stand `last/`, for the last epoch, and `calibrated/`, for the best checkpoint with the temperature that is fitted on
the validation images. `test/` has more than result.json: brier, ece, balanced_acc (the mean of the recalls), and
recall/A+B, the mean recall of the classes A and B. gradient_ratio is the gradient of the first layer over that of the
last one, root mean squares of their weights' gradients, as the median of the first epoch.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lossfit import runs
from lossfit.diagnosis.history import History
from lossfit.diagnosis.rules.series import matrices, median
from lossfit.errors import UserError, one_line
from lossfit.plain_values import is_moderate
from lossfit.runs import names
from lossfit.system import files
from lossfit.tasks import metric_names

LAST, CALIBRATED, TEST, RECALL, RATIO = "last/", "calibrated/", "test/", "recall/", "gradient_ratio"


def measured(folder: Path, wanted: Iterable[str]) -> dict[str, float]:
    """Return the metrics of a run that has finished, those of `wanted` that it has; measure what is not known yet.

    measured.json of the run folder keeps them, so that no checkpoint is evaluated twice. What is evaluated is tested as
    the run was, with its tta. If a checkpoint or the data cannot be used, a warning says why, the metrics that need
    them are left out, and nothing is kept.
    """
    wanted = [*wanted]
    about = {"started": runs.read_result(folder).get("started"), "tta": runs.read_config(folder).get("tta")}
    kept = _kept(folder / names.MEASURED)
    if all(kept.get(key) == value for key, value in about.items()) and set(wanted) <= set(kept.get("asked", [])):
        return {name: kept["values"][name] for name in wanted if name in kept["values"]}
    known, complete = _of_run(folder), True
    for prefix in ("", LAST, CALIBRATED):
        missing = [name for name in wanted if name.startswith(prefix + TEST) and name not in known]
        if missing and (folder / (names.LAST if prefix == LAST else names.BEST)).exists():
            try:
                found = _evaluated(folder, prefix, about["tta"])
            except (UserError, OSError, RuntimeError) as error:
                complete = False
                print(
                    f"Warning: {', '.join(missing)} of {folder} is left out: {one_line(error)}; resume the sweep to "
                    f"measure it again",
                    flush=True,
                )
            else:
                known = {prefix + TEST + name: value for name, value in found.items()} | known  # the run's own win
    values = {name: value for name in wanted if (value := _value(known, name)) is not None and is_moderate(value)}
    if complete:
        files.write_json(folder / names.MEASURED, about | {"asked": wanted, "values": values})
    return values


def _kept(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        return dict(json.loads(files.read_text(file)))
    return {}


def _of_run(folder: Path) -> dict[str, float]:
    """Return what the run itself has measured; of the last epoch, what metrics.csv has."""
    result = runs.read_result(folder)
    known = {**result.get("metrics", {}), **result.get("timings", {}), "epochs": result.get("epochs")}
    for key in metric_names.keys(_task_of(result), ("train", "val"), ("costs", "two classes")):
        if curve := runs.curve(folder, key):
            known[LAST + key] = curve[max(curve)]
    known[RATIO] = _gradient_ratio(folder / names.DIAGNOSIS)
    return {name: value for name, value in known.items() if value is not None}


def _task_of(result: Mapping[str, Any]) -> str:
    headline = result.get("headline")
    return next((task for task in metric_names.TASKS if metric_names.headline(task) == headline), "classification")


def _value(known: Mapping[str, float], name: str) -> float | None:
    """Return a metric; the mean of those of several classes, A+B."""
    start, found, classes = name.partition(f"/{RECALL}")
    if not found:
        return known.get(name)
    recalls = [known.get(f"{start}{found}{one}") for one in classes.split("+")]
    numbers = [one for one in recalls if one is not None]
    return sum(numbers) / len(numbers) if len(numbers) == len(recalls) else None


def _evaluated(folder: Path, prefix: str, tta: Any) -> dict[str, float]:
    """Return the metrics of the test split of the best checkpoint, the last one, or the best one with a temperature."""
    from lossfit.inference import calibration, evaluation
    from lossfit.inference.trained_model import load

    file = folder / (names.LAST if prefix == LAST else names.BEST)
    model = load(file, tta=tta)
    if prefix == CALIBRATED:
        alone = load(file)  # scripts/evaluate.py fits the temperature without tta too
        images, target = evaluation.split(alone, calibration.SPLIT, None, folder)
        outputs = evaluation.outputs_of(alone, images)
        try:
            model.temperature = calibration.fit(alone.of_task, outputs, target)
        except UserError:  # no temperature fits
            return {}
    images, target = evaluation.split(model, "test", None, folder)
    found = _flat(model.of_task.measure(evaluation.outputs_of(model, images)[None], target))
    return found | ({"temperature": model.temperature} if prefix == CALIBRATED else {})


def _flat(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an evaluation by name."""
    found = {name: one["value"] if isinstance(one, dict) else one for name, one in report.items() if _is_metric(one)}
    if recalls := {name: one["recall"] for name, one in report.get("classes", {}).items() if one["recall"]}:
        found |= {RECALL + name: one["value"] for name, one in recalls.items()}
        found["balanced_acc"] = sum(one["value"] for one in recalls.values()) / len(recalls)
    return found


def _is_metric(one: Any) -> bool:
    return isinstance(one, int | float) or (isinstance(one, dict) and "value" in one)


def _gradient_ratio(file: Path) -> float | None:
    """Return the first layer's gradient over the last one's; None without a diagnosis, or with a single layer."""
    try:
        history = History.from_plain(json.loads(files.read_text(file))["history"])
        sizes = history.facts["sizes"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    layers = matrices(history)
    if len(layers) < 2:
        return None
    first, last = (history.steps["grad"][:, i] / sizes[i] ** 0.5 for i in (layers[0], layers[-1]))
    return median((first / np.where(last > 0, last, np.nan))[history.steps["epoch"] <= 1])
