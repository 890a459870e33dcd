"""Where pixels move: mirror, shift, crop and erase the images of a batch, each in its own way.

Shapes: images (N, C, H, W) uint8 or float; what differs among the samples is a tensor with N rows. No function draws
random numbers but `boxes`, and none has a loop over samples.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TRIES = 10  # draws of a box, of which the first that fits is taken, as in torchvision
PART = 2**19  # values that a processor works on at a time, so that they stay in its cache


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror the images for which `which` (N,) bool is true, left to right."""
    both = torch.cat([images, images.flip(-1)])  # whole images are copied several times faster than by torch.where
    count = len(images)
    return both.index_select(0, torch.arange(count, device=images.device) + count * which)


def translate(images: Tensor, shift: Tensor, fill: float = 0.0, largest: int | None = None) -> Tensor:
    """Move image i down by shift[i, 0] and right by shift[i, 1] pixels; pixels from outside the image are `fill`.

    shift: (N, 2) int64, each at most the image's size. largest: their largest size. None computes it from shift;
    this synchronises with the GPU.
    """
    count, channels, height, width = images.shape
    edge = int(shift.abs().max()) if largest is None else largest
    padded = F.pad(images, (edge, edge, edge, edge), value=fill)
    # whole rows are copied: `start` is where each row of the result begins in the padded images
    top, left = edge - shift[:, 0], edge - shift[:, 1]
    plane = torch.arange(count * channels, device=images.device).view(count, channels, 1) * padded.shape[2]
    row = plane + top[:, None, None] + torch.arange(height, device=images.device)
    start = row * padded.shape[3] + left[:, None, None]
    return padded.view(-1).unfold(0, width, 1).index_select(0, start.view(-1)).view_as(images)


def erase(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor | None = None, fill: float = 0.0
) -> Tensor:
    """Fill a box of height[i] x width[i] pixels of image i with its corner at (top[i], left[i]); all (N,) int64.

    Without a width it is a square. The part outside the image is cut off.
    """
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    tall = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (N, H)
    wide = (columns >= left[:, None]) & (columns < (left + (height if width is None else width))[:, None])  # (N, W)
    return images.masked_fill((tall[:, :, None] & wide[:, None, :])[:, None], fill)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, mirrored: Tensor | None = None
) -> Tensor:
    """Enlarge a box of height[i] x width[i] pixels of image i to the size of the image, bilinearly; images are uint8.

    The box must be in the image; all (N,) int64. The images for which `mirrored` (N,) bool is true are also mirrored.
    A box is never larger than the image, so there is nothing that antialiasing would change.

    First the columns are blended, then the rows, each rounded to a level: as in torchvision, with weights of 8 bits in
    16-bit arithmetic. On a processor this takes two thirds of the time of grid_sample, whose numbers have 32 bits.
    """
    rows = _neighbours(top, height, images.shape[2])
    columns = _neighbours(left, width, images.shape[3])
    if mirrored is not None:
        columns = [torch.where(mirrored[:, None], each.flip(1), each) for each in columns]
    return in_parts(_resampled, images, *columns, *rows)


def _neighbours(start: Tensor, size: Tensor, full: int) -> list[Tensor]:
    """(N,) boxes along an axis of `full` pixels -> (N, full): what each new pixel is blended from.

    That is the index of the pixel before its place, of the one after it, and the weight of the latter, in 256ths. The
    box's outermost pixels are repeated.
    """
    place = (torch.arange(full, device=start.device) + 0.5) * (size[:, None] / full) - 0.5
    place = place.clamp(min=0).minimum(size[:, None] - 1.0)
    before = place.long()
    after = (before + 1).minimum(size[:, None] - 1)
    return [start[:, None] + before, start[:, None] + after, ((place - before) * 256).round().to(torch.int16)]


def _resampled(images: Tensor, *columns_and_rows: Tensor) -> Tensor:
    columns, rows = columns_and_rows[:3], columns_and_rows[3:]
    return _blended_rows(_blended_rows(images.mT.contiguous(), *columns).mT.contiguous(), *rows)


def _blended_rows(images: Tensor, before: Tensor, after: Tensor, weight: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose row j is the blend of the rows before[:, j] and after[:, j]."""
    count, channels, height, width = images.shape
    first_row = height * torch.arange(count * channels, device=images.device).view(count, channels, 1)
    table = images.reshape(-1, width)
    one = table.index_select(0, (first_row + before[:, None]).flatten()).to(torch.int16)
    other = table.index_select(0, (first_row + after[:, None]).flatten()).to(torch.int16)
    weights = weight[:, None].expand(-1, channels, -1).reshape(-1, 1)
    # 256 one + weight (other - one) + 128, of which the upper byte is the result: modulo 2**16 nothing is lost
    blend = other.sub_(one).mul_(weights).add_(one, alpha=256).add_(128)
    return blend.bitwise_right_shift_(8).to(torch.uint8).view(images.shape)


def boxes(
    count: int, size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw `count` boxes in an image of the size (H, W): top, left, height, width (N,) int64, and whether it fits.

    The area is uniform over the range, as a share of the image's, the ratio of width to height uniform over the
    logarithms of its range, the place uniform over all. Of ten boxes the first that has a pixel and fits in the image
    is taken. If none does, the last element is false and the box is the whole image.
    """
    device = generator.device
    share = torch.rand(count, TRIES, generator=generator, device=device) * (area[1] - area[0]) + area[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = (torch.rand(count, TRIES, generator=generator, device=device) * (high - low) + low).exp()
    pixels = share * (size[0] * size[1])
    heights, widths = (pixels / shape).sqrt().round().long(), (pixels * shape).sqrt().round().long()
    fits = (heights > 0) & (heights <= size[0]) & (widths > 0) & (widths <= size[1])
    first, found = fits.int().argmax(1, keepdim=True), fits.any(1)
    height = heights.gather(1, first).squeeze(1).where(found, size[0])
    width = widths.gather(1, first).squeeze(1).where(found, size[1])
    place = torch.rand(2, count, generator=generator, device=device)
    top, left = _uniform(place[0], size[0] - height), _uniform(place[1], size[1] - width)
    return top, left, height, width, found


def _uniform(draw: Tensor, most: Tensor) -> Tensor:
    """(N,) draws from 0 to 1 -> (N,) whole numbers from 0 to most[i], equally likely."""
    return (draw * (most + 1)).long().minimum(most)  # the product may be rounded up to most + 1


def in_parts(transform: Callable[..., Tensor], images: Tensor, *each: Tensor) -> Tensor:
    """Return `transform(images, *each)`; on a processor in parts of the batch, for speed."""
    size = max(1, PART // images.shape[1:].numel()) if images.device.type == "cpu" else len(images)
    if size >= len(images):
        return transform(images, *each)
    parts = zip(*(tensor.split(size) for tensor in (images, *each)), strict=True)
    return torch.cat([transform(*part) for part in parts])
