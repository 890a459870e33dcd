"""Random augmentation of a batch on its device, each sample with its own draw.

Shapes: images (N, C, H, W) float or uint8. Every transform is `f(images, ...) -> images`, a batched tensor
operation without a loop over samples; `Augment` draws the random numbers and applies them in turn.
"""

import torch
from torch import Tensor


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror left to right the images where `which` (N,) bool holds."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def translate(images: Tensor, shift: Tensor, fill: float = 0.0) -> Tensor:
    """Move image i down by shift[i, 0] and right by shift[i, 1] pixels; what comes in from outside is `fill`.

    shift: (N, 2) int64, each at most the image's size.
    """
    count, channels, height, width = images.shape
    rows = torch.arange(height, device=images.device) - shift[:, :1]  # (N, H): where each row comes from
    columns = torch.arange(width, device=images.device) - shift[:, 1:]  # (N, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    source = source.view(count, 1, height * width).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, source).view_as(images)
    return moved.masked_fill(~inside[:, None], fill)


def erase(images: Tensor, top: Tensor, left: Tensor, size: Tensor, fill: float = 0.0) -> Tensor:
    """Fill a size[i] x size[i] square of image i, its corner at (top[i], left[i]); all (N,) int64."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    tall = (rows >= top[:, None]) & (rows < (top + size)[:, None])  # (N, H)
    wide = (columns >= left[:, None]) & (columns < (left + size)[:, None])  # (N, W)
    return images.masked_fill((tall[:, :, None] & wide[:, None, :])[:, None], fill)


class Augment:
    """Flip, translate and erase at random.

    flip: the probability of a mirror image, 0 to 1. translate: the largest shift in pixels, both ways on both
    axes. erase: the side in pixels of a square set to black at a random place, cut off at the edges. 0 turns
    each of them off. Calling it with all off returns the batch as it came.
    """

    def __init__(self, flip: float = 0.0, translate: int = 0, erase: int = 0) -> None:
        if not 0 <= flip <= 1:
            raise ValueError(f"flip must be a probability from 0 to 1, got {flip}")
        if translate < 0:
            raise ValueError(f"translate must be >= 0 pixels, got {translate}")
        if erase < 0:
            raise ValueError(f"erase must be >= 0 pixels, got {erase}")
        self.flip, self.translate, self.erase = flip, translate, erase

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the augmented batch; the generator, on the images' device, decides every draw."""
        count, _, height, width = images.shape
        device = images.device

        def draw(low: int, high: int, *shape: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator, device=device)

        if self.flip:
            images = flip(images, torch.rand(count, generator=generator, device=device) < self.flip)
        if self.translate:
            images = translate(images, draw(-self.translate, self.translate + 1, count, 2))
        if self.erase:
            half = self.erase // 2  # the square's centre is uniform over the image
            top, left = draw(0, height, count) - half, draw(0, width, count) - half
            images = erase(images, top, left, torch.full_like(top, self.erase))
        return images
