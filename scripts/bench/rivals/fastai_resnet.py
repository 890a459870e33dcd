"""The small ResNets of fastai's course 22 part 2, notebooks 13_resnet and 14_augment, trained there for five epochs.

AdamW, one cycle to 0.01, batches of 1024, no augmentation. The notebook reports 93.4% for the one with channels to 512
(--wide) and 92.8% for the one that begins with a plain convolution and has channels to 256; it trains on all 60,000
images, watches the test images and shows one seed. --bf16: the same with bfloat16 autocast and channels last, which the
notebook does not have. The images are normalised once and stay in memory, which is faster than the notebook's way.
Source: https://github.com/fastai/course22p2
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from rival import DEVICE, Measured, arguments, splits
from torch import Tensor, nn

BATCH, LR, MEAN, STD = 1024, 1e-2, 0.28, 0.35
LEAK, SHIFT = 0.1, 0.4  # of the activation


def main() -> None:
    """Train and write the result."""
    options = arguments(__doc__, "--wide", "--bf16")
    torch.manual_seed(options.seed)
    layout = torch.channels_last if options.bf16 else torch.contiguous_format
    data = {
        split: (((images / 255 - MEAN) / STD).to(memory_format=layout), labels)
        for split, (images, labels) in splits(options.folder, options.val).items()
    }
    model = network(options.wide).to(DEVICE).to(memory_format=layout)
    images, labels = data["train"]
    steps = options.epochs * -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps)
    measured = Measured(model, options.epochs)
    for _ in range(options.epochs):
        model.train()
        for index in torch.randperm(len(labels), device=DEVICE).split(BATCH):
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=options.bf16):
                loss = F.cross_entropy(model(images[index]), labels[index])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        measured.validated(accuracy(model, *data["val"], bf16=options.bf16))
    measured.tested(lambda: accuracy(model, *data["test"], bf16=options.bf16), options.out)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, bf16: bool) -> float:
    """Return the share of images that are classified right."""
    model.eval()
    right = 0
    for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=bf16):
            right += int((model(some).argmax(1) == truth).sum())
    return right / len(labels)


class Activation(nn.Module):
    """A leaky ReLU, shifted down so that its mean is near 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation."""
        return F.leaky_relu(x, LEAK) - SHIFT


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, active: bool = True) -> nn.Sequential:
    """Return convolution (with a bias, as in the course), batch norm and activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([Activation()] if active else []))


class Block(nn.Module):
    """Two convolutions beside a shortcut: average pooling if the stride is 2, then a 1 x 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(inputs, outputs, kernel), convolution(outputs, outputs, kernel, stride, active=False)
        )
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        self.activation = Activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.activation(self.convolutions(x) + self.shortcut(self.pool(x)))
        return y


def network(wide: bool) -> nn.Module:
    """Return the ResNet with channels to 512, or the one with a plain first convolution and channels to 256."""
    widths = (16, 32, 64, 128, 256, 512) if wide else (16, 32, 64, 128, 256)
    first = Block(1, 16, 1, kernel=5) if wide else convolution(1, 16, 5)
    blocks = [Block(inputs, outputs, 2) for inputs, outputs in pairwise(widths)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10, bias=False), nn.BatchNorm1d(10)]
    model = nn.Sequential(first, *blocks, *head)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, a=LEAK)
    return model


if __name__ == "__main__":
    main()
