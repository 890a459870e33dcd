"""Load a trained classifier from a run folder or a checkpoint, and use it on images. Needs no Hydra and no config."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from lossfit import runs
from lossfit.config import build
from lossfit.data.batches import Normalize
from lossfit.decisions import cheapest, probabilities
from lossfit.errors import ConfigError, UserError
from lossfit.inference import image_files
from lossfit.models.closed import builders, from_checkpoint
from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint

AnyImage = str | os.PathLike[str] | Image | np.ndarray
Images = Tensor | AnyImage | Sequence[AnyImage]
ACCEPTED = (
    "a path, a PIL image, a uint8 array (H, W) or (H, W, C), a list of these, or a uint8 tensor of pixels (N, C, H, W)"
)


class TrainedClassifier(nn.Module):
    """Images -> probabilities (N, num_classes), by the link of the loss that the model was trained with.

    `classify` returns the names of the classes, `predict` their numbers, a call the probabilities. Each takes pixels, a
    uint8 tensor (N, C, H, W), or what `pixels` turns into them: a path, a PIL image, an array, or a list of these.

    classes: the names of the classes. image_shape: (C, H, W) of the training images. costs: `costs[true][predicted]`
    or None. metrics, epochs: the values measured when the checkpoint was written, and after how many epochs that was.
    config: the run's config.
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
        """Pixels, uint8 (N, C, H, W) -> logits (N, num_classes)."""
        channels = self.image_shape[0]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images must be uint8 pixels (N, C, H, W), got {got}; the model has C = {channels}")
        return self.model(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W) -> probabilities (N, num_classes) that sum to 1."""
        return probabilities(self.logits(images), self.link)

    def __call__(self, images: Images) -> Tensor:
        """Images of any kind -> probabilities (N, num_classes) that sum to 1."""
        return super().__call__(self.pixels(images))

    def classify(self, images: Images) -> list[str]:
        """Images of any kind -> the name of the predicted class of each, also of a single one."""
        return [self.classes[k] for k in self.predict(images).tolist()]

    @torch.inference_mode()
    def predict(self, images: Images) -> Tensor:
        """Images of any kind -> predicted classes (N,): the likeliest, or with costs those of lowest expected cost."""
        return self.decide(self.logits(self.pixels(images)))

    def pixels(self, images: Images, invert: bool | None = None) -> Tensor:
        """Images of any kind and size -> pixels, uint8 (N, C, H, W), of the training images' size.

        A tensor is returned as it is. How another image is scaled, padded and, by `invert`, inverted, is described at
        `image_files.fit`. Raises UserError for a file that cannot be read, ValueError or TypeError for another object.
        """
        if isinstance(images, Tensor):
            return images
        several = images if isinstance(images, (list, tuple)) else [images]
        if not several:
            raise ValueError("images is an empty list")
        options = self.image_shape, invert, self.light_background
        found = []
        for image in several:
            if isinstance(image, (str, os.PathLike)):
                found.append(image_files.read(image, *options)[0])
            elif isinstance(image, (Image, np.ndarray)):
                picture = image_files.from_array(image) if isinstance(image, np.ndarray) else image
                found.append(image_files.fit(picture, *options)[0])
            else:
                raise TypeError(f"images must be {ACCEPTED}; got {type(image).__name__}")
        return torch.stack(found).to(self.normalize.scale.device)

    @property
    def light_background(self) -> bool:
        """Whether the training images are light rather than dark, in the mean."""
        return bool((-self.normalize.shift / self.normalize.scale).mean() > 127.5)

    def decide(self, logits: Tensor) -> Tensor:
        """Logits (N, num_classes) -> predicted classes (N,), as `predict` returns them."""
        if self.costs is None:
            return logits.argmax(1)
        return cheapest(logits, self.link, torch.tensor(self.costs, device=logits.device))


def load(
    path: str | os.PathLike[str], *, model: nn.Module | None = None, trust_code: bool = False
) -> TrainedClassifier:
    """Return the classifier of a run folder (its best checkpoint) or of a checkpoint file, in eval mode on the CPU.

    A checkpoint is data: it may name the models of lossfit and torchvision's classification models, and loading it runs
    no code from it, imports nothing that it names and downloads nothing. If the model is the user's own code, pass it
    as `model`, built as for the training, or pass trust_code=True to import the code that the checkpoint names. A run
    folder that this account made on this machine needs neither.

    Raises UserError, naming the file, if it is missing, damaged or of another program, or if its model is refused.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    weights, facts = checkpoint.weights, checkpoint.description.facts
    node = checkpoint.description.config["model"]
    try:
        with torch.random.fork_rng(devices=[]):  # building a model draws random numbers
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
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()  # the first line is a headline
        name = type(model).__name__ if model is not None else node.get("_target_")
        raise UserError(f"{file}: its weights do not fit {name}: {first:.300}") from error
    return TrainedClassifier(made, checkpoint).eval()


def _composed_here(file: Path, node: dict[str, Any]) -> bool:
    """Whether a checkpoint lies in a run folder that this account made, and the folder's config has the same model."""
    folder = checkpoints.home(file)
    try:
        return runs.is_trusted(folder) and runs.read_config(folder).get("model") == node
    except UserError:
        return False
