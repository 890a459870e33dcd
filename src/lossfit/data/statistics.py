"""Mean and standard deviation of each channel of a split, exactly."""

import math

import torch
from torch import Tensor

from lossfit.data.stores.images import Images, stream

LEVELS = 255  # pixels are divided by it


def channel_statistics(images: Images, batch_size: int = 128) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation of each channel, of pixels scaled to 0..1; see ChannelSums."""
    if not len(images):
        raise ValueError("images must have at least one image, got none")
    sums = ChannelSums(images.shape[1])
    for batch in stream(images, torch.arange(len(images)).split(batch_size)):
        sums.add(batch)
    return sums.statistics()


class ChannelSums:
    """The pixels of each channel and their squares, summed batch by batch.

    The sums are whole numbers, so that neither the batch size nor the order of the images changes a bit of the result.
    """

    def __init__(self, channels: int) -> None:
        self.pixels = 0
        self.sums, self.squares = [0] * channels, [0] * channels

    def add(self, images: Tensor) -> None:
        """Add images (B, C, H, W) uint8."""
        values = images.transpose(0, 1).flatten(1).int()  # (C, B * H * W); the square of a level fits in 32 bits
        self.pixels += values.shape[1]
        self.sums = [known + new for known, new in zip(self.sums, values.sum(1).tolist(), strict=True)]
        self.squares = [known + new for known, new in zip(self.squares, values.square_().sum(1).tolist(), strict=True)]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the mean and the standard deviation of each channel, of pixels scaled to 0..1.

        The deviation is that of the population: its square is the mean squared distance from the mean. A channel in
        which all pixels are equal gets a deviation of one level, 1/255, by which it can be divided.
        """
        mean = tuple(total / (LEVELS * self.pixels) for total in self.sums)
        spread = [self.pixels * square - total * total for total, square in zip(self.sums, self.squares, strict=True)]
        return mean, tuple(math.sqrt(one) / (LEVELS * self.pixels) if one else 1 / LEVELS for one in spread)
