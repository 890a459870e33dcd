"""Images that are in a split twice, or in the training split as well."""

import torch
from torch import Tensor

from lossfit.data.stores.images import Images

CHUNK = 2**24  # bytes that are looked at at a time
MIDDLE = 128  # bytes in the middle of an image that are compared first


def shared_images(train: Images, other: Images) -> int | None:
    """Return how many images of `other` have the pixels of an image of `train`; None if they are not in memory.

    Candidates are found by a 64-bit number of the middle of each image, of those by one of the whole image, and then
    compared pixel by pixel.
    """
    if not isinstance(train, Tensor) or not isinstance(other, Tensor):
        return None
    middles = [_numbers(_middle(images)) for images in (train, other)]
    train, other = train[torch.isin(*middles)], other[torch.isin(*reversed(middles))]
    numbers, order = _numbers(train).sort()
    wanted = _numbers(other)
    place, end = torch.searchsorted(numbers, wanted), torch.searchsorted(numbers, wanted, right=True)
    shared = torch.zeros(len(other), dtype=torch.bool, device=place.device)
    while len(rows := (~shared & (place < end)).nonzero()[:, 0]):  # more than once only if different images collide
        for part in rows.split(_images_at_a_time(other)):
            shared[part] = (other[part] == train[order[place[part]]]).flatten(1).all(1)
        place[rows] += 1
    return int(shared.sum())


def repeated_images(images: Images) -> int | None:
    """Return how many images have the pixels of another one before them; None if they are not in memory."""
    if not isinstance(images, Tensor):
        return None
    middles = _numbers(_middle(images))
    _, group, sizes = middles.unique(return_inverse=True, return_counts=True)
    images = images[sizes[group] > 1]  # of equal middles
    numbers, order = _numbers(images).sort(stable=True)
    pairs = (numbers[1:] == numbers[:-1]).nonzero()[:, 0]
    parts = pairs.split(_images_at_a_time(images)) if len(pairs) else ()
    return sum(int((images[order[part]] == images[order[part + 1]]).flatten(1).all(1).sum()) for part in parts)


def _middle(images: Tensor) -> Tensor:
    rows = images.flatten(1)
    start = max(0, (rows.shape[1] - MIDDLE) // 16 * 8)
    return rows[:, start : start + MIDDLE]


def _images_at_a_time(images: Tensor) -> int:
    return max(1, CHUNK // max(1, images[:1].numel()))


def _numbers(images: Tensor) -> Tensor:
    """Return a number for each image (N,), equal for equal pixels, and rarely for others."""
    rows = images.flatten(1)
    spare = -rows.shape[1] % 8
    if spare:
        rows = torch.nn.functional.pad(rows, (0, spare))
    words = rows.contiguous().view(torch.int64)
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (words.shape[1],), generator=generator).to(words.device) * 2 + 1
    return torch.cat([_mixed(part, factors) for part in words.split(_images_at_a_time(images))])


def _mixed(words: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of words (N, W) with factors (W,).

    The upper bits of a word are first added to the lower ones: times an odd factor, a difference in the uppermost byte
    alone would leave all other bytes of the sum as they are.
    """
    return ((words ^ (words >> 32)) * factors).sum(1)
