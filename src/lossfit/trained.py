"""A trained classifier, ready for use: from a run folder or a checkpoint alone, with no Hydra and no config file."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lossfit import checkpoints
from lossfit.config import build
from lossfit.costs import cheapest, probabilities
from lossfit.data.batches import Normalize
from lossfit.errors import ConfigError, UserError

MODELS = ("lossfit.models.", "torch.nn.", "torchvision.models.", "timm.")


class TrainedClassifier(nn.Module):
    """uint8 pixels (N, C, H, W) -> probabilities (N, num_classes), by the link of the loss it was trained with.

    classes: the names of the classes. image_shape: (C, H, W) of the images it was trained on. costs: (true, predicted)
    -> cost, or None. metrics and epochs: what was measured when the checkpoint was written, after how many of them.
    config: the run's.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, checkpoint: dict[str, Any]) -> None:
        super().__init__()
        about = checkpoint["hyper_parameters"]
        self.model = model
        self.classes: tuple[str, ...] = tuple(about["class_names"])
        self.image_shape: tuple[int, int, int] = tuple(about["image_shape"])
        self.link: str = about["link"]
        self.costs: list[list[float]] | None = about["costs"]
        self.config: dict[str, Any] = about["config"]
        self.metrics: dict[str, float] = checkpoint["metrics"]
        self.epochs: int = checkpoint["epochs"]
        normalize = Normalize(about["mean"], about["std"])
        self.register_buffer("scale", normalize.scale, persistent=False)
        self.register_buffer("shift", normalize.shift, persistent=False)

    def logits(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> logits (N, num_classes)."""
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images must be uint8 pixels (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
        return self.model(torch.addcmul(self.shift, images.float(), self.scale))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> probabilities (N, num_classes) that sum to 1."""
        return probabilities(self.logits(images), self.link)

    @property
    def light(self) -> bool:
        """Whether the images it was trained on are light rather than dark, in the mean."""
        return bool((-self.shift / self.scale).mean() > 127.5)

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """uint8 pixels (N, C, H, W) -> classes (N,): the cheapest ones where costs were given, else the likeliest."""
        return self.decide(self.logits(images))

    def decide(self, logits: Tensor) -> Tensor:
        """Logits (N, num_classes) -> classes (N,), as `predict` does."""
        if self.costs is None:
            return logits.argmax(1)
        return cheapest(logits, self.link, torch.tensor(self.costs, device=logits.device))


def load(path: str | os.PathLike[str]) -> TrainedClassifier:
    """Return the classifier of a run folder (its best checkpoint) or of a checkpoint file, in eval mode on the CPU.

    Raises UserError, naming the file, for one that is missing, torn or foreign; nothing in it is run, and nothing is
    downloaded.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    about = checkpoint["hyper_parameters"]
    node = about["config"]["model"]
    for target in _targets(node):
        if not target.startswith(MODELS):
            raise UserError(f"{file}: its model is {target}, and only {', '.join(MODELS)} are built from a checkpoint")
    if "weights" in node:
        node = {**node, "weights": None}  # pretrained ones would be downloaded, only to be replaced
    facts = {"num_classes": len(about["class_names"]), "image_shape": tuple(about["image_shape"])}
    try:
        with torch.random.fork_rng(devices=[]):  # leave the caller's random numbers as they are
            model = build(node, "model", **facts, class_names=about["class_names"])
    except ConfigError as error:
        raise UserError(f"{file}: {error}") from error
    try:
        model.load_state_dict(checkpoints.weights(checkpoint))
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]  # after a headline that says less
        raise UserError(
            f"{file}: its weights do not fit its own model {node['_target_']}: {first[0].strip()}"
        ) from error
    return TrainedClassifier(model, checkpoint).eval()


def _targets(node: Any) -> Iterator[str]:
    """All that a config node names to be called."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "_target_":
            yield str(value)
        yield from _targets(value)
