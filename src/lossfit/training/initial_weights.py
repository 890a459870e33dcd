"""Weights that a run starts from: those of another run, or of its own checkpoint."""

from pathlib import Path

from torch import nn

from lossfit.errors import ConfigError, UserError
from lossfit.models.closed import difference
from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint


def start_from(model: nn.Module, path: Path) -> tuple[str, tuple[list[float], list[float]]]:
    """Copy a trained run's weights into a new model where name and shape agree.

    Return a line for the log, and the mean and the deviation of each channel with which the weights were trained.
    Raises ConfigError if none fit.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    found = checkpoint.weights
    own = model.state_dict()
    fitting = {n: value for n, value in found.items() if n in own and not difference({n: value}, {n: own[n]})}
    if not fitting:
        raise ConfigError(f"init_from={path}: none of its weights fit this model")
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    note = f"Weights from {file}" + (f"; anew, since they differ in name or shape: {', '.join(left)}" if left else "")
    return note, (checkpoint.description.mean, checkpoint.description.std)


def check_same_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Raise UserError if the model has other weights than the checkpoint, as after a change of the code."""
    if differs := difference(model.state_dict(), checkpoint.weights):
        name, own, kept = differs
        raise UserError(
            f"model: the run cannot go on, since the model has changed: {name} has the shape {own}, and {kept} in the "
            f"checkpoint; init_from takes the weights that still fit"
        )
