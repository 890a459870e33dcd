"""The temperature of a trained model (1706.04599): fitted on the validation split, stored beside the run, read again.

One number for all classes. Logits are divided by it, and the variances of a regression multiplied by it.
"""

import hashlib
import json
import math
import os
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossfit import runs
from lossfit.errors import UserError
from lossfit.plain_values import MAX_TEXT, float32_digits, is_finite, shown
from lossfit.runs import checkpoints, names
from lossfit.system import files
from lossfit.tasks.task import Task

LOWEST, HIGHEST = 1e-3, 1e3  # temperatures
POINTS, ROUNDS = 9, 11  # of the search: each round has a quarter of the range of the one before, the last 3e-6
SPLIT = "val"  # the test split is not used for any choice


@torch.inference_mode()
def fit(task: Task, outputs: Tensor, target: Tensor) -> float:
    """Return the temperature with the least mean negative log-likelihood of outputs (N, K) of a model.

    The search is by logarithms from LOWEST to HIGHEST. It returns 1 if no temperature is better than 1. Raises
    UserError if the task has no temperature, or if the likelihood has no maximum in the range: that of a model without
    any mistake rises with ever lower temperatures.
    """
    check_task(task)
    exact = outputs.double()

    def nll(logarithm: float) -> float:
        return task.nll(task.tempered(exact, math.exp(logarithm)), target).double().mean().item()

    before = nll(0.0)
    if not math.isfinite(before):
        raise UserError("the model's outputs for the validation split are not finite, so that no temperature fits them")
    low, high = math.log(LOWEST), math.log(HIGHEST)
    best = 0.0
    for _ in range(ROUNDS):
        points = torch.linspace(low, high, POINTS, dtype=torch.double).tolist()
        best = min(points, key=nll)
        step = points[1] - points[0]
        low, high = max(low, best - step), min(high, best + step)
    if not nll(best) < before:
        return 1.0
    on = f"for the {len(target):,} images of the validation split"
    if best > math.log(HIGHEST) - 0.01:
        raise UserError(
            f"no temperature up to {HIGHEST:g} is high enough {on}: what the model returns has no more to do with them "
            f"than chance, as after a training that diverged, and no temperature changes that; train it again"
        )
    if best < math.log(LOWEST) + 0.01:
        raise UserError(
            f"no temperature down to {LOWEST:g} is low enough {on}, as if all were predicted right: a temperature "
            f"needs mistakes, so more images (data.val_size)"
        )
    return float32_digits(math.exp(best))


def check_task(task: Task) -> None:
    """Raise UserError if a temperature has no meaning for a task."""
    if not task.takes_temperature:
        raise UserError(
            f"a {task.name} without variances says nothing of how sure it is, so that it cannot be calibrated: train "
            f"it with loss=gaussian_nll"
        )


def describe(task: Task, outputs: Tensor, target: Tensor, temperature: float) -> dict[str, Any]:
    """Return the content of calibration.json but for its checkpoint: the temperature, and nll and ece before, after."""
    both = {"before": outputs.float(), "after": task.tempered(outputs.float(), temperature)}
    nll = {when: float32_digits(task.nll(one, target).double().mean().item()) for when, one in both.items()}
    return {
        "temperature": temperature,
        "split": SPLIT,
        "samples": len(target),
        "nll": nll,
        "ece": {when: task.ece(one, target) for when, one in both.items()},
    }


def write(path: str | os.PathLike[str], content: dict[str, Any], epochs: int) -> Path:
    """Write calibration.json into a run folder, or beside a checkpoint that is in none; return its path.

    epochs: after how many the checkpoint was saved.
    """
    checkpoint = checkpoints.find(path)
    file = checkpoints.home(path) / names.CALIBRATION
    about = {
        "checkpoint": {"file": checkpoint.name, "epochs": epochs, "sha256": _digest(checkpoint)},
        "fitted": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": runs.versions(),
    }
    files.write_json(file, content | about)
    return file


def read(path: str | os.PathLike[str], task: Task) -> float:
    """Return the temperature of a run folder's or a checkpoint's calibration.json, which may come from anyone.

    Raises UserError if there is none, if it is damaged, or if it was fitted for another checkpoint.
    """
    check_task(task)
    file, checkpoint = checkpoints.home(path) / names.CALIBRATION, checkpoints.find(path)
    command = f"python scripts/evaluate.py {shlex.quote(str(path))} --calibrate"
    if not file.exists():
        raise UserError(f"{file} does not exist: {command} makes it")
    content = _content(file)
    if content is None:
        raise UserError(f"{file} is damaged: {command} makes it again")
    temperature: Any = content.get("temperature")
    about = content.get("checkpoint")
    if not (is_finite(temperature) and LOWEST <= temperature <= HIGHEST):
        raise UserError(
            f"{file}: temperature must be a number from {LOWEST:g} to {HIGHEST:g}, got {shown(temperature)}; {command} "
            f"makes the file again"
        )
    if not isinstance(about, dict) or about.get("sha256") != _digest(checkpoint):
        raise UserError(f"{file} was fitted for another checkpoint than {checkpoint}: {command} fits it for this one")
    return float(temperature)


def _content(file: Path) -> dict[str, Any] | None:
    """Return what a file holds; None if it is not a mapping in JSON of a small size."""
    try:
        content = json.loads(files.read_text(file, MAX_TEXT))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
