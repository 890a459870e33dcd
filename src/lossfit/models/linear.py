"""Softmax regression: the baseline that every other model has to beat."""

from math import prod

from torch import nn


class Linear(nn.Sequential):
    """One linear layer on the flattened pixels."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(prod(image_shape), num_classes))
