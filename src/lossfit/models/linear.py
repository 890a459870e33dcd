"""Softmax regression: the baseline for every other model."""

from math import prod

from torch import nn

from lossfit.models.head import head
from lossfit.ranges import Positive, checked


class Linear(nn.Sequential):
    """One linear layer on the flattened pixels. cosine_scale: see `head`."""

    @checked
    def __init__(
        self, num_classes: int, image_shape: tuple[int, int, int], cosine_scale: Positive | None = None
    ) -> None:
        super().__init__(nn.Flatten(), head(prod(image_shape), num_classes, cosine_scale))
