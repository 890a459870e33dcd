"""A multi-layer perceptron; with its defaults the network of PyTorch's quickstart, 784-512-512-10."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from lossfit.models.head import head


class MLP(nn.Sequential):
    """Linear layers with ReLU between them on the flattened pixels.

    hidden: width of each hidden layer. dropout: probability of zeroing a hidden unit in training, 0 to
    below 1. cosine_scale: see `head`.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        hidden: Sequence[int] = (512, 512),
        dropout: float = 0.0,
        cosine_scale: float | None = None,
    ) -> None:
        if not all(width >= 1 for width in hidden):
            raise ValueError(f"hidden must be widths >= 1, got {list(hidden)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise([prod(image_shape), *hidden]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, head(hidden[-1] if hidden else prod(image_shape), num_classes, cosine_scale))
