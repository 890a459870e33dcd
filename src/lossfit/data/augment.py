"""Random augmentation of a batch on its device, with other random numbers for each sample.

Shapes: images (N, C, H, W) float or uint8. A transform is a function `f(images, ...) -> images` without a loop over
samples; `Augment` draws the random numbers and applies the transforms in turn.
"""

from typing import Annotated

import torch
from torch import Tensor

from lossfit.ranges import From0To1, at_least, checked

Pixels = Annotated[int, at_least(0)]


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror the images for which `which` (N,) bool is true, left to right."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def translate(images: Tensor, shift: Tensor, fill: float = 0.0) -> Tensor:
    """Move image i down by shift[i, 0] and right by shift[i, 1] pixels; pixels from outside the image are `fill`.

    shift: (N, 2) int64, each at most the image's size.
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) - shift[:, :1]  # (N, H): the source of each row
    columns = torch.arange(width, device=images.device) - shift[:, 1:]  # (N, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    source = source.view(count, 1, height * width).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, source).view_as(images)
    return moved.masked_fill(~inside[:, None], fill)


def erase(images: Tensor, top: Tensor, left: Tensor, size: Tensor, fill: float = 0.0) -> Tensor:
    """Fill a square of size[i] x size[i] pixels of image i with its corner at (top[i], left[i]); all (N,) int64."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    tall = (rows >= top[:, None]) & (rows < (top + size)[:, None])  # (N, H)
    wide = (columns >= left[:, None]) & (columns < (left + size)[:, None])  # (N, W)
    return images.masked_fill((tall[:, :, None] & wide[:, None, :])[:, None], fill)


class Augment:
    """Flip, translate and erase at random.

    flip: the probability of a mirror image. translate: the largest shift in pixels, in both directions of both axes.
    erase: the side in pixels of a square that is set to black at a random place, cut off at the image's edges. 0
    turns each of them off.
    """

    @checked
    def __init__(self, flip: From0To1 = 0.0, translate: Pixels = 0, erase: Pixels = 0) -> None:
        self.flip, self.translate, self.erase = flip, translate, erase

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the augmented batch; all random numbers come from the generator, on the images' device."""
        count, _, height, width = images.shape
        device = images.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        if self.flip:
            images = flip(images, torch.rand(count, generator=generator, device=device) < self.flip)
        if self.translate:
            images = translate(images, draw(-self.translate, self.translate + 1, count, 2))
        if self.erase:
            half = self.erase // 2  # the centre of the square is uniform over the image
            top, left = draw(0, height, count) - half, draw(0, width, count) - half
            images = erase(images, top, left, torch.full_like(top, self.erase))
        return images
