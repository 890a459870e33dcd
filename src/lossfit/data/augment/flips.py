"""Which images of a batch are mirrored: by chance, or each image and its mirror image in turn.

An alternating flip (2404.00498) mirrors an image in every other epoch, so that two epochs show both forms of every
image, where chance shows one form twice to half of the images. A bit of each image, drawn from the seed, says whether
it is mirrored in even or in odd epochs. It needs at least two epochs.
"""

from typing import Literal

import torch
from torch import Tensor

from lossfit.ranges import From0To1

Flip = From0To1 | Literal["alternating"]


def mirrored(flip: Flip, count: int, generator: torch.Generator, turn: Tensor | None) -> Tensor:
    """Return which of `count` images are mirrored (N,) bool, on the generator's device; see `turns` for `turn`."""
    if isinstance(flip, str):
        if turn is None:
            raise ValueError("flip=alternating needs the turn of each image, got none")
        return turn
    return torch.rand(count, generator=generator, device=generator.device) < flip


def turns(images: int, seed: int, epoch: int) -> Tensor:
    """Return which images of a training split an alternating flip mirrors in an epoch (images,) bool."""
    bits = torch.randint(0, 2, (images,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return (bits ^ (epoch % 2)).bool()
