"""The lines that a run prints at its start and at its end."""

import logging
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lossfit.config import Config
from lossfit.data import ImageDataModule
from lossfit.option_files import chosen
from lossfit.runs.checkpoint_schema import Checkpoint
from lossfit.system import files
from lossfit.system.processors import machine
from lossfit.tasks import metric_names

log = logging.getLogger(__name__)


def say(lines: Iterable[str]) -> None:
    """Log lines for the user."""
    for line in lines:
        log.info("%s", line)


def warn_of_missing_callbacks(config: Config) -> None:
    """Warn of default callbacks that a run does not have, most often because callbacks= replaced them."""
    given, option = config.get("callbacks") or {}, chosen(config).get("callbacks")
    effects = {
        "checkpoint": "best.ckpt is not kept, and the last weights are tested",
        "last_checkpoint": "the run cannot be resumed",
        "epoch_report": "no line is printed after each epoch",
        "diagnosis": "nothing says what the run suffers from",
    }
    missing = [f"without {name} {effect}" for name, effect in effects.items() if name not in given]
    if missing and option:
        log.warning(
            "callbacks=%s replaces the default callbacks: %s; +callbacks=%s adds to them",
            option,
            ", ".join(missing),
            option,
        )


def circumstances(config: Config, data: ImageDataModule, trainer: Trainer) -> dict[str, Any]:
    """Return what result.json says of the data, the machine and the test: each split's images, where they were found.

    tta, over which views of each image the test is averaged, is in it if there is one.
    """
    tta = config.get("tta") if config["test"] else None
    return {
        **({"tta": tta} if tta else {}),
        "images": {split: len(labels) for split, (_, labels) in data.splits.items()},
        "source": data.source,
        "machine": machine(),
        "devices": f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}",
    }


def opening_lines(config: Config, result: Mapping[str, Any], checkpoint: Checkpoint | None) -> list[str]:
    """Say what is trained, on which images and devices, and from where a resumed run goes on."""
    sizes = ", ".join(f"{count:,} {split}" for split, count in result["images"].items())
    choices = chosen(config)
    named = [f"{part} {choices[part]}" for part in ("model", "loss", "optimizer", "scheduler") if part in choices]
    source = f" from {result['source']}" if result["source"] else ""
    parameters = f"{result['parameters']:,} parameters"
    lines = [" | ".join([*named, parameters, f"images {sizes}{source}", result["devices"]])]
    return [*lines, _resumption(config, checkpoint)] if checkpoint is not None else lines


def _resumption(config: Config, checkpoint: Checkpoint) -> str:
    text = f"Going on after {checkpoint.epochs} epochs and {checkpoint.global_step} steps"
    wanted = config["trainer"].get("max_epochs")
    if wanted != checkpoint.max_epochs:
        text += f"; max_epochs was {checkpoint.max_epochs}: the schedule is fitted anew to {wanted}"
    return text


def closing_lines(folder: Path, result: dict[str, Any], findings: Sequence[str]) -> list[str]:
    """Say why the run ended early, if it did, what it suffers from, how it tested, and where its curves are."""
    metrics = result["metrics"]
    lines = [*findings]
    lines += [result["reason"][0].upper() + result["reason"][1:]] if result.get("reason") else []
    if tested := metric_names.end_line(metrics):
        at = f" (best of {result['epochs']} epochs: {result['best_epoch']})" if "best_epoch" in result else ""
        views = f", tta={result['tta']}" if result.get("tta") else ""
        lines.append(f"Test {tested}{at}{views}")
    shown = files.from_here(folder)
    return [*lines, f"Run folder    {shown}", f"Curves        tensorboard --logdir {shlex.quote(str(shown))}"]
