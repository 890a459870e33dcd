"""PyTorch's quickstart tutorial, with its dataset, transform, loaders, model, optimizer and five epochs.

Only the validation differs: the tutorial watches the test images, this watches held-out training images, and tests
once at the end. Source: https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html
"""

from typing import Any

import torch
from rival import DEVICE, Measured, arguments
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor


def main() -> None:
    """Train and write the result."""
    options = arguments(__doc__)
    torch.manual_seed(options.seed)
    training = FashionMNIST(str(options.folder), train=True, transform=ToTensor())
    kept = len(training) - options.val
    train = DataLoader(Subset(training, range(kept)), batch_size=64)  # in the order of the file, as the tutorial
    val = DataLoader(Subset(training, range(kept, len(training))), batch_size=64)
    test = DataLoader(FashionMNIST(str(options.folder), train=False, transform=ToTensor()), batch_size=64)
    model = network().to(DEVICE)
    loss_fn, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=1e-3)
    measured = Measured(model, options.epochs)
    for _ in range(options.epochs):
        model.train()
        for images, labels in train:
            loss = loss_fn(model(images.to(DEVICE)), labels.to(DEVICE))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        measured.validated(accuracy(model, val))
    measured.tested(lambda: accuracy(model, test), options.out)


def network() -> nn.Module:
    """Return the tutorial's network."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[Any]) -> float:
    """Return the share of a loader's images that are classified right."""
    model.eval()
    right = total = 0
    for images, labels in loader:
        right += int((model(images.to(DEVICE)).argmax(1) == labels.to(DEVICE)).sum())
        total += len(labels)
    return right / total


if __name__ == "__main__":
    main()
