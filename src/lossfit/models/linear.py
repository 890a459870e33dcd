"""Softmax regression: the baseline that every other model has to beat."""

from math import prod

from torch import nn

from lossfit.models.head import head


class Linear(nn.Sequential):
    """One linear layer on the flattened pixels. cosine_scale: see `head`."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], cosine_scale: float | None = None) -> None:
        super().__init__(nn.Flatten(), head(prod(image_shape), num_classes, cosine_scale))
