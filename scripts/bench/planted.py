"""Faults to plant in a run: models, losses and callbacks that are wrong on purpose, for scripts/bench/diagnosis.py.

They go into a run as your own code does, from the folder of train.py:

    python train.py model=custom model.function=scripts.bench.planted.Net +model.options.activation=Sigmoid
    python train.py loss=custom loss.function=scripts.bench.planted.wrong_sign
    python train.py +callbacks=custom callbacks.custom.function=scripts.bench.planted.LeakedValidation
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn

from lossfit.cli import composed
from lossfit.config import build
from lossfit.models.cnn import CNN


class Net(nn.Sequential):
    """Fully connected layers of one width, whose start can be spoiled.

    depth: the number of hidden layers. activation: a module of torch.nn. scale: factor on all weights of torch's
    initialisation. head_scale: on those of the last layer. bias: added to the biases of the hidden layers. head_bias:
    added to the first output's bias. raw: bytes from 0 to 255 in place of normalised pixels.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: Sequence[int],
        depth: int = 2,
        width: int = 128,
        activation: str = "ReLU",
        scale: float = 1.0,
        head_scale: float = 1.0,
        bias: float = 0.0,
        head_bias: float = 0.0,
        raw: bool = False,
    ) -> None:
        layers: list[nn.Module] = [Bytes()] if raw else []
        layers.append(nn.Flatten())
        inputs = math.prod(image_shape)
        for _ in range(depth):
            layers += [nn.Linear(inputs, width), getattr(nn, activation)()]
            inputs = width
        head = nn.Linear(inputs, num_classes)
        super().__init__(*layers, head)
        with torch.no_grad():
            for layer in self:
                if isinstance(layer, nn.Linear):
                    layer.weight *= scale
                    layer.bias += bias if layer is not head else 0
            head.weight *= head_scale
            head.bias[0] += head_bias


class Bytes(nn.Module):
    """Turns normalised pixels of Fashion-MNIST back to their bytes."""

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, from 0 to 255."""
        return (images * 0.3530 + 0.2860) * 255


def scaled_cnn(num_classes: int, image_shape: tuple[int, int, int], scale: float = 1.0, bias: float = 0.0) -> nn.Module:
    """Return model=cnn with its convolutions' weights times `scale`, and its batch norms' biases plus `bias`."""
    model = CNN(num_classes, image_shape)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight *= scale
            elif isinstance(layer, nn.BatchNorm2d):
                layer.bias += bias
    return model


class TwoBranches(nn.Module):
    """The sum of two small networks. fault: detached (one branch is), no_grad (its features are computed without a
    gradient), unused (one branch is never called), frozen (random features that require no gradient) or null.
    """

    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], fault: str | None = None, width: int = 16
    ) -> None:
        super().__init__()
        self.fault = fault
        self.first, self.second = (
            nn.Sequential(
                nn.Conv2d(image_shape[0], width, size, 2, size // 2),
                nn.ReLU(),
                nn.Conv2d(width, width, size, 2, size // 2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(3),
                nn.Flatten(),
            )
            for size in (3, 5)
        )
        self.head = nn.Linear(9 * width, num_classes)
        if fault == "frozen":
            self.first.requires_grad_(False)
            self.second.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.fault != "no_grad"):
            first = self.first(images)
            second = self.second(images) if self.fault != "unused" else torch.zeros_like(first)
        return self.head(first + (second.detach() if self.fault == "detached" else second))


def wrong_sign(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the wrong sign: training makes it worse."""
    return -F.cross_entropy(logits, target, reduction="none")


def tempered(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of logits that are divided by a temperature that the model's user does not know of."""
    return F.cross_entropy(logits / temperature, target, reduction="none")


def unstable(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy as a textbook writes it: the probability of the label underflows to 0, whose log is infinite."""
    powers = torch.exp(logits)
    return -torch.log(powers.gather(1, target[:, None]) / powers.sum(1, keepdim=True)).squeeze(1)


class NaNLoss(nn.Module):
    """Cross-entropy that is NaN after a part of the training, as of a sample with an empty label."""

    progress = 0.0

    def __init__(self, after: float = 0.5) -> None:
        super().__init__()
        self.after = after

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N,) -> (N,)."""
        loss = F.cross_entropy(logits, target, reduction="none")
        return loss * math.nan if self.training and self.progress >= self.after else loss


class NaNGradient(Callback):
    """Makes the gradient of one parameter NaN in one step, as a division by zero in its backward pass does."""

    def __init__(self, step: int = 60, parameter: str = "1.weight") -> None:
        self.step, self.parameter = step, parameter

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Spoil the gradient."""
        if trainer.global_step == self.step:
            pl_module.model.get_parameter(self.parameter).grad.fill_(math.nan)


class _ChangedData(Callback):
    """Changes the training split before the first epoch."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Change the split once."""
        splits = trainer.datamodule.splits  # type: ignore[attr-defined]
        if stage == "fit":
            images, target = splits["train"]
            splits["train"] = self.changed(images.clone(), target.clone(), splits["val"])

    def changed(self, images: Tensor, target: Tensor, val: Any) -> tuple[Tensor, Tensor]:
        """Return the new split, of the same size."""
        raise NotImplementedError


class LeakedValidation(_ChangedData):
    """Puts a share of the validation images and their labels into the training split, in place of others."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def changed(self, images: Tensor, target: Tensor, val: Any) -> tuple[Tensor, Tensor]:
        """Replace the first images."""
        count = min(len(images), round(self.share * len(val[1])))
        images[:count], target[:count] = val[0][:count], val[1][:count]
        return images, target


class DroppedClass(_ChangedData):
    """Replaces the training images of one class by those of others: validation has a class that was never seen."""

    def __init__(self, number: int = 3) -> None:
        self.number = number

    def changed(self, images: Tensor, target: Tensor, val: Any) -> tuple[Tensor, Tensor]:
        """Repeat other images."""
        lost = (target == self.number).nonzero().squeeze(1)
        kept = (target != self.number).nonzero().squeeze(1)
        other = kept[torch.arange(len(lost)) % len(kept)]
        images[lost], target[lost] = images[other], target[other]
        return images, target


class BlankImages(_ChangedData):
    """Replaces all training images by black ones, as a wrong path of a loader does."""

    def changed(self, images: Tensor, target: Tensor, val: Any) -> tuple[Tensor, Tensor]:
        """Return black images."""
        return torch.zeros_like(images), target


class SpoiledBatches(Callback):
    """Multiplies the pixels of one batch in `every` by `factor`, as a part of the data that was not normalised."""

    def __init__(self, every: int = 10, factor: float = 100.0) -> None:
        self.every, self.factor = every, factor

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Change the batch in place."""
        if trainer.global_step % self.every == self.every - 1:
            batch[0].mul_(self.factor)


def write_tags(folder: Path, count: int = 4000) -> None:
    """Write images for data=folder with several labels each: 2 x 2 halved images of Fashion-MNIST, some left empty.

    tags.csv has the classes of each. Which images and where is the same in all calls.
    """
    data = build(composed("data=fashion_mnist")["data"], "data", seed=0)
    data.prepare_data()
    images, labels = data.read(train=True)
    small = F.avg_pool2d(images.float(), 2).round().byte()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(labels), (count, 4), generator=generator)
    shown = torch.rand(count, 4, generator=generator) < 0.6
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = ["path,tags"]
    for number in range(count):
        tiles = small[chosen[number], 0] * shown[number, :, None, None]
        picture = torch.cat([torch.cat([tiles[0], tiles[1]], 1), torch.cat([tiles[2], tiles[3]], 1)])
        path = f"images/{number:05}.png"
        Image.fromarray(picture.numpy()).save(folder / path)
        tags = {data.class_names[k] for k in labels[chosen[number][shown[number]]].tolist()}
        rows.append(f"{path},{';'.join(sorted(tags))}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")  # last: then the folder is complete
