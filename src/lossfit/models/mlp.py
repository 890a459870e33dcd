"""A multi-layer perceptron; its defaults are the network of PyTorch's quickstart tutorial, 784-512-512-10."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from torch import nn

from lossfit.models.head import head
from lossfit.ranges import Count, From0Below1, Positive, checked

Activation = Literal["relu", "gelu", "tanh", "sigmoid"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Sequential):
    """Linear layers with an activation between them on the flattened pixels.

    hidden: the width of each hidden layer. activation: relu, gelu, tanh or sigmoid, whose derivative is at most 1/4, so
    that the gradients of the first layers vanish in a deep network. dropout: the probability of zeroing a hidden unit
    in training. cosine_scale: see `head`. init_gain: the hidden weights begin as normal numbers with the standard
    deviation init_gain / sqrt(inputs); null for torch's uniform ones, with 0.58 / sqrt(inputs). With sqrt(2) and relu
    (1502.01852), or 5/3 and tanh, activations and gradients have the same size in all layers; with less they vanish in
    a deep network, with more they explode. For small images: the first layer has 77 million weights at 224 pixels RGB.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        hidden: Sequence[Count] = (512, 512),
        dropout: From0Below1 = 0.0,
        cosine_scale: Positive | None = None,
        activation: Activation = "relu",
        init_gain: Positive | None = None,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise([prod(image_shape), *hidden]):
            layer = nn.Linear(inputs, outputs)
            if init_gain is not None:
                nn.init.normal_(layer.weight, std=init_gain / inputs**0.5)
            layers += [layer, ACTIVATIONS[activation]()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, head(hidden[-1] if hidden else prod(image_shape), num_classes, cosine_scale))
