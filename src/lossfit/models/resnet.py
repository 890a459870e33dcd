"""Residual networks with pre-activation, for small images (1603.05027)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.models.finetuning import Freeze, fine_tuned
from lossfit.models.head import head
from lossfit.ranges import Between0And1, Count, From0Below1, Positive, checked


class PreActivationBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), with a 1x1 convolution on the shortcut if the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        active = F.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(active))))


class ResNet(nn.Sequential):
    """Three groups of PreActivationBlock, the second and the third with half the resolution of the one before.

    depth: the number of blocks in a group; the network has 6 depth + 2 layers. width: the channels of the first group,
    doubled in each next one. dropout: the probability of zeroing a pooled feature in training. cosine_scale: see
    `head`. freeze, layer_decay: see `fine_tuned`.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        depth: Count = 2,
        width: Count = 16,
        dropout: From0Below1 = 0.0,
        cosine_scale: Positive | None = None,
        freeze: Freeze | None = None,
        layer_decay: Between0And1 | None = None,
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)]
        inputs = width
        for group in range(3):
            outputs = width * 2**group
            for block in range(depth):
                layers.append(PreActivationBlock(inputs, outputs, stride=2 if group and not block else 1))
                inputs = outputs
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers, head(inputs, num_classes, cosine_scale))
        self.to(memory_format=torch.channels_last)
        fine_tuned(self, str(len(self) - 1), freeze, layer_decay)
