"""Any of torchvision's classification models, changed to fit the data's channels and classes."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.errors import did_you_mean
from lossfit.models.finetuning import Freeze, fine_tuned
from lossfit.models.head import head
from lossfit.models.pixel_statistics import for_channels
from lossfit.ranges import Between0And1, Positive, Range, checked


class Resized(nn.Module):
    """A model behind a layer that resizes its images to size x size pixels."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model = model
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        resized = F.interpolate(images, size=(self.size, self.size), mode="bilinear", antialias=True)
        return self.model(resized)


@checked
def torchvision_model(
    num_classes: int,
    image_shape: tuple[int, int, int],
    name: str = "resnet18",
    weights: str | None = None,
    resize: Annotated[int, Range(1, 4096)] | None = None,
    cosine_scale: Positive | None = None,
    freeze: Freeze | None = None,
    layer_decay: Between0And1 | None = None,
) -> nn.Module:
    """Build a torchvision classification model; replace its first convolution and its head where they do not fit.

    name: one of torchvision.models.list_models(). weights: a name such as "DEFAULT" for pretrained weights, which are
    downloaded; the head then gets new weights, a first convolution for another number of channels than the data have
    gets the sum of its weights over the colours, divided by the number of channels, and pixels are normalised as for
    these weights. resize: the height and width in pixels to which images are resized first, for models that need more
    than the data have (32 for vgg, 224 for vision transformers). cosine_scale: see `head`. freeze, layer_decay: see
    `fine_tuned`.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"name must be a torchvision classification model, got {name!r}{did_you_mean(name, known)}")
    two_heads = name in ("googlenet", "inception_v3")  # the second one is for training only, and left out
    options = {"aux_logits": False, "init_weights": weights is None} if two_heads else {}
    model = models.get_model(name, weights=weights, **options)
    if two_heads:
        model.transform_input = False  # it would transform three colours
    _fit_first_convolution(model, image_shape[0])
    last = _fit_head(model, num_classes, cosine_scale)
    if resize is not None:
        model, last = Resized(model, resize), f"model.{last}"
    if weights is not None:
        preset = models.get_model_weights(name)[weights.rpartition(".")[2]].transforms()
        model.pixel_statistics = for_channels((tuple(preset.mean), tuple(preset.std)), image_shape[0])
    return fine_tuned(model, last, freeze, layer_decay)


def _fit_first_convolution(model: nn.Module, channels: int) -> None:
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]  # torch annotates these as tuples of any length
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.sum(1, keepdim=True).expand_as(new.weight) / channels)
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def _fit_head(model: nn.Module, num_classes: int, cosine_scale: float | None) -> str:
    """Replace the last layer; return its name."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    name, old = layers[-1]
    new: nn.Module
    if isinstance(old, nn.Conv2d):  # squeezenet
        if cosine_scale is not None:
            raise ValueError(f"cosine_scale={cosine_scale} needs a linear head; this model's is a convolution")
        new = nn.Conv2d(old.in_channels, num_classes, kernel_size=1)
    else:
        new = head(old.in_features, num_classes, cosine_scale)
    model.set_submodule(name, new)
    return name
