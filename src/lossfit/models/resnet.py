"""Pre-activation residual networks for small images (1603.05027)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.models.head import head


class PreActivationBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), with a 1x1 convolution on the shortcut where the shape changes."""

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
    """Three groups of pre-activation blocks, the second and third at half the resolution of the one before.

    depth: blocks a group; the net has 6 * depth + 2 layers. width: channels of the first group, doubled in
    each next one. dropout: probability of zeroing a pooled feature in training, 0 to below 1. cosine_scale: see `head`.
    """

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        depth: int = 2,
        width: int = 16,
        dropout: float = 0.0,
        cosine_scale: float | None = None,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be >= 1 block a group, got {depth}")
        if width < 1:
            raise ValueError(f"width must be >= 1 channel, got {width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
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
