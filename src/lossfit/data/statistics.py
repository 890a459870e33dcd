"""Mean and standard deviation of each channel of a split, exactly."""

import math
from typing import Protocol

import torch
from torch import Tensor

LEVELS = 255  # pixels are divided by it


class Images(Protocol):
    """Images of one size, taken by their indices: a uint8 tensor (N, C, H, W) is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor: ...


def channel_statistics(images: Images, batch_size: int = 128) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel, of pixels scaled to 0..1.

    Pixels and their squares are summed as whole numbers, so that neither the batch size nor the order of the images
    changes a bit of the result. The deviation is that of the population: its square is the mean squared distance from
    the mean. A channel in which all pixels are equal gets a deviation of one level, 1/255, by which it can be divided.
    """
    if not len(images):
        raise ValueError("images must have at least one image, got none")
    channels = images.shape[1]
    sums, squares = [0] * channels, [0] * channels
    for start in range(0, len(images), batch_size):
        batch = images[torch.arange(start, min(start + batch_size, len(images)))]
        values = batch.transpose(0, 1).flatten(1).int()  # (C, B * H * W); the square of a level fits in 32 bits
        sums = [known + new for known, new in zip(sums, values.sum(1).tolist(), strict=True)]
        squares = [known + new for known, new in zip(squares, values.square_().sum(1).tolist(), strict=True)]
    pixels = len(images) * math.prod(images.shape[2:])
    mean = tuple(total / (LEVELS * pixels) for total in sums)
    spread = [pixels * square - total * total for total, square in zip(sums, squares, strict=True)]
    return mean, tuple(math.sqrt(one) / (LEVELS * pixels) if one else 1 / LEVELS for one in spread)
