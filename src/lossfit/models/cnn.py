"""A small convolutional network that trains in minutes on a laptop's CPU."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import nn

from lossfit.models.finetuning import Freeze, fine_tuned
from lossfit.models.head import head
from lossfit.ranges import Between0And1, Count, From0Below1, Positive, checked


class CNN(nn.Sequential):
    """Blocks of 3x3 convolution, batch norm and ReLU, a 2x2 average pooling, then one linear layer.

    widths: the channels of each block. strides: the stride of each block's convolution; 2 in the first makes the
    network about four times as fast, since all later blocks have a quarter of the pixels. dropout: the probability of
    zeroing a feature before the linear layer in training. The linear layer knows where in the image a feature is, which
    suits centred objects; for objects anywhere use ResNet, which averages over the positions. The network is for small
    images, to about 64 pixels: its linear layer grows with the image, and no layer sees more than a small part of a
    large one. Use ResNet, torchvision's or timm's models for those. Weights are stored in channels_last, with which an
    epoch of a similar network took 70 s instead of 88 s (two Zen 4 cores). cosine_scale: see `head`. freeze,
    layer_decay: see `fine_tuned`.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        widths: Sequence[Count] = (32, 32, 64, 64),
        strides: Sequence[Count] = (2, 1, 2, 1),
        dropout: From0Below1 = 0.2,
        cosine_scale: Positive | None = None,
        freeze: Freeze | None = None,
        layer_decay: Between0And1 | None = None,
    ) -> None:
        if len(widths) != len(strides) or not widths:
            raise ValueError(f"widths must be as many as strides, at least one, got {list(widths)} and {list(strides)}")
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
        fine_tuned(self, str(len(self) - 1), freeze, layer_decay)
