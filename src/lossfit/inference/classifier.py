"""A trained classifier, ready for use: from a run folder or a checkpoint alone, with no Hydra and no config file."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lossfit import runs
from lossfit.config import build
from lossfit.data.batches import Normalize
from lossfit.decisions import cheapest, probabilities
from lossfit.errors import ConfigError, UserError
from lossfit.models.closed import builders, from_checkpoint
from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint


class TrainedClassifier(nn.Module):
    """uint8 pixels (N, C, H, W) -> probabilities (N, num_classes), by the link of the loss it was trained with.

    classes: the names of the classes. image_shape: (C, H, W) of the images it was trained on. costs: (true, predicted)
    -> cost, or None. metrics and epochs: what was measured when the checkpoint was written, after how many of them.
    config: the run's.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        super().__init__()
        about = checkpoint.description
        self.model = model
        self.classes: tuple[str, ...] = tuple(about.class_names)
        channels, height, width = about.image_shape
        self.image_shape = (channels, height, width)
        self.link: str = about.link
        costs = about.costs
        self.costs: list[list[float]] | None = None if costs is None else [list(map(float, row)) for row in costs]
        self.config = about.config
        self.metrics = checkpoint.metrics
        self.epochs = checkpoint.epochs
        self.normalize = Normalize(about.mean, about.std)

    def logits(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> logits (N, num_classes)."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 pixels (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
        return self.model(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> probabilities (N, num_classes) that sum to 1."""
        return probabilities(self.logits(images), self.link)

    @property
    def light(self) -> bool:
        """Whether the images it was trained on are light rather than dark, in the mean."""
        return bool((-self.normalize.shift / self.normalize.scale).mean() > 127.5)

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> classes (N,): the cheapest ones where costs were given, else the likeliest."""
        return self.decide(self.logits(images))

    def decide(self, logits: Tensor) -> Tensor:
        """Logits (N, num_classes) -> classes (N,), as `predict` does."""
        if self.costs is None:
            return logits.argmax(1)
        return cheapest(logits, self.link, torch.tensor(self.costs, device=logits.device))


def load(
    path: str | os.PathLike[str], *, model: nn.Module | None = None, trust_code: bool = False
) -> TrainedClassifier:
    """Return the classifier of a run folder (its best checkpoint) or of a checkpoint file, in eval mode on the CPU.

    A checkpoint is data: it may name the models of lossfit and torchvision's classification models, and nothing in it
    is run, imported or downloaded. For a run whose model is code of your own, give the model, built as for the
    training, as `model`, or say trust_code=True to have the code that the checkpoint names imported. A run folder that
    was made by this account on this machine needs neither.

    Raises UserError, naming the file, for one that is missing, damaged or foreign, or whose model is refused.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    weights, facts = checkpoint.weights, checkpoint.description.facts
    node = checkpoint.description.config["model"]
    try:
        with torch.random.fork_rng(devices=[]):  # leave the caller's random numbers as they are
            if model is not None:
                made = model
            elif str(node.get("_target_")) not in builders() and (trust_code or _composed_here(file, node)):
                made = build(node, "model", **facts)
            else:
                made = from_checkpoint(node, weights, **facts)
        made.load_state_dict(weights)
    except ConfigError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error
    except (RuntimeError, AttributeError) as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()  # after a headline that says less
        name = type(model).__name__ if model is not None else node.get("_target_")
        raise UserError(f"{file}: its weights do not fit {name}: {first:.300}") from error
    return TrainedClassifier(made, checkpoint).eval()


def _composed_here(file: Path, node: dict[str, Any]) -> bool:
    """Whether a checkpoint lies in a run folder of this account, whose config has the same model."""
    folder = checkpoints.home(file)
    try:
        return runs.is_trusted(folder) and runs.read_config(folder).get("model") == node
    except UserError:
        return False
