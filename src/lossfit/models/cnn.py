"""The default model: a small convolutional net that trains in minutes on a laptop's processor."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import nn

from lossfit.models.head import head


class CNN(nn.Sequential):
    """Blocks of 3x3 convolution, batch norm and ReLU, 2x2 means, then one linear layer on all that is left.

    widths: channels of each block. strides: how far each block's window moves; the first at 2 makes the net
    four times as fast, since it quarters the pixels that all later blocks see. dropout: probability of
    zeroing a feature before the linear layer in training, 0 to below 1. The linear layer sees where in the
    image a feature is, which suits centred objects; for objects anywhere take a ResNet, which averages over
    places. Weights are stored channels-last, the faster order on processors and on GPUs. cosine_scale: see `head`.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        widths: Sequence[int] = (32, 32, 64, 64),
        strides: Sequence[int] = (2, 1, 2, 1),
        dropout: float = 0.2,
        cosine_scale: float | None = None,
    ) -> None:
        if len(widths) != len(strides) or not widths:
            raise ValueError(f"widths must be as many as strides, at least one, got {list(widths)} and {list(strides)}")
        if min(widths) < 1 or min(strides) < 1:
            raise ValueError(f"widths and strides must be >= 1, got {list(widths)} and {list(strides)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        layers: list[nn.Module] = []
        inputs, height, width = image_shape
        for outputs, stride in zip(widths, strides, strict=True):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs, height, width = outputs, ceil(height / stride), ceil(width / stride)
        layers += [nn.AvgPool2d(2, ceil_mode=True), nn.Flatten()]
        height, width = ceil(height / 2), ceil(width / 2)
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers, head(inputs * height * width, num_classes, cosine_scale))
        self.to(memory_format=torch.channels_last)
