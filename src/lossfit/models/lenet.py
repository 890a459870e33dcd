"""LeNet-5 of LeCun et al., "Gradient-based learning applied to document recognition", 1998."""

import torch
from torch import Tensor, nn

from lossfit.models.head import head
from lossfit.ranges import Positive, checked

SMALLEST = 12  # pixels: the second convolution then has one position


class LeNet(nn.Sequential):
    """Two 5x5 convolutions with 2x2 average pooling, then linear layers 120-84-num_classes, with ReLU between them.

    61,706 parameters for images of 1 x 28 x 28 and ten classes. There is no batch norm and no dropout. cosine_scale:
    see `head`. init_std: the weights of all layers begin as normal numbers with this standard deviation, cut off at
    twice of it; null for torch's own. ValueError for images of less than 12 x 12 pixels.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        cosine_scale: Positive | None = None,
        init_std: Positive | None = None,
    ) -> None:
        channels, height, width = image_shape
        if min(height, width) < SMALLEST:
            raise ValueError(f"LeNet needs images of at least {SMALLEST} x {SMALLEST} pixels, got {height} x {width}")
        features = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(features, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            head(84, num_classes, cosine_scale),
        )
        if init_std is not None:
            for layer in self:
                if isinstance(weight := getattr(layer, "weight", None), Tensor):
                    nn.init.trunc_normal_(weight, std=init_std, a=-2 * init_std, b=2 * init_std)
        self.to(memory_format=torch.channels_last)
