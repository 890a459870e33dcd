"""Colour jitter: brightness, contrast, saturation and hue of a batch, each sample by its own amount.

Shapes: images (N, C, H, W) float with values from 0 to 255, C 1 (grey) or 3 (RGB); amounts (N,). The formulas are those
of torchvision.transforms.v2.functional, which take one amount for a whole batch. Grey images have no saturation and no
hue: both leave them as they are, as in torchvision.
"""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

WHITE = 255.0


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Return factor x, within 0 to 255."""
    return (images * _each(factor)).clamp_(0, WHITE)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Return m + factor (x - m), within 0 to 255; m is the mean of the image's grey values."""
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Return g + factor (x - g), within 0 to 255; g is the pixel's grey value."""
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of the HSV colour model by `turn` of the colour circle: 0.5 and -0.5 give the opposite colour."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    value = red.maximum(green).maximum(blue)
    chroma = value - red.minimum(green).minimum(blue)
    scale = chroma.clamp(min=1e-6)  # of a grey pixel, whose hue has no effect
    sixths = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    sixths += 6 * turn[:, None, None]
    # a channel is `value` on the third of the colour circle around its colour, `low` on the opposite third
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    distance = (sixths[:, None] + offsets) / 6
    distance = distance.sub_(distance.floor()).mul_(6)
    return torch.addcmul(value[:, None], chroma[:, None], distance.minimum(4 - distance).clamp_(0, 1), value=-1)


def _grey(images: Tensor) -> Tensor:
    """Return the grey values (N, 1, H, W), whole numbers as in torchvision."""
    return images if images.shape[1] == 1 else functional.rgb_to_grayscale(images).floor_()


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other, images, _each(factor)).clamp_(0, WHITE)


def _each(amounts: Tensor) -> Tensor:
    return amounts[:, None, None, None]
