"""Weights that a run starts from: what the model takes from the training images, those of another run, its own."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lossfit.data import ImageDataModule
from lossfit.data.batches import Normalize
from lossfit.data.stores.images import Ordered, stream
from lossfit.errors import ConfigError, UserError
from lossfit.models.closed import difference
from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint

MOST_PIXELS = 2**22  # of the training images that a model is shown: 5,349 images of Fashion-MNIST


class Start(NamedTuple):
    """What of another run's checkpoint fits a model: its weights by name, and its pixel statistics.

    note: a line for the log.
    """

    note: str
    statistics: tuple[list[float], list[float]]
    weights: dict[str, Tensor]


def of_another_run(model: nn.Module, path: Path) -> Start:
    """Return the weights of a trained run that agree with the model's in name and shape.

    Raises ConfigError if there are none.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    found = checkpoint.weights
    own = model.state_dict()
    fitting = {n: value for n, value in found.items() if n in own and not difference({n: value}, {n: own[n]})}
    if not fitting:
        raise ConfigError(f"init_from={path}: none of its weights fit this model")
    left = [name for name in own if name not in fitting]
    note = f"Weights from {file}" + (f"; anew, since they differ in name or shape: {', '.join(left)}" if left else "")
    return Start(note, (checkpoint.description.mean, checkpoint.description.std), fitting)


def show_training_images(model: nn.Module, data: ImageDataModule) -> None:
    """Call the model's `initialise_from`, if it has one, with normalised training images (N, C, H, W).

    The images are not augmented, and evenly spaced over the training split; of a stream, in a few of its chunks. They
    depend on the data alone, so that all ranks show the same. A new run does this once: its checkpoints have what the
    model made of them.
    """
    initialise_from = getattr(model, "initialise_from", None)
    if initialise_from is None:
        return
    images = data.splits["train"][0]
    count = min(len(images), max(1, MOST_PIXELS // (images.shape[2] * images.shape[3])))
    if isinstance(images, Ordered):
        index = images.order(torch.Generator().manual_seed(0))[:count].sort().values
    else:
        index = torch.arange(count) * len(images) // count
    pixels = next(iter(stream(images, [index]))).cpu()
    initialise_from(Normalize(data.mean, data.std).batch(pixels))


def check_same_model(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Raise UserError if the model has other weights than the checkpoint, as after a change of the code."""
    if differs := difference(model.state_dict(), checkpoint.weights):
        name, own, kept = differs
        raise UserError(
            f"model: the run cannot go on, since the model has changed: {name} has the shape {own}, and {kept} in the "
            f"checkpoint; init_from takes the weights that still fit"
        )
