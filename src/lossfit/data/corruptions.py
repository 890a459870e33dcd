"""Faults put into a training set on purpose: wrong labels, rare classes, images of noise.

Shapes: images (N, C, H, W) uint8, labels (N,) int64.
"""

import torch
from torch import Tensor


def noisy_labels(labels: Tensor, rate: float, pairwise: bool, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which exactly round(rate N), chosen at random, are wrong.

    A wrong label is any other class with equal probability, or, if pairwise, the next class: k + 1 for k.
    """
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    shift = torch.ones(len(chosen), dtype=torch.long)
    if not pairwise:
        shift = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    return labels.index_put((chosen,), (labels[chosen] + shift) % num_classes)


def noise_matrix(rate: float, pairwise: bool, num_classes: int) -> Tensor:
    """Return the expected share (true class, label) of each class that `noisy_labels` gives each label."""
    right = torch.eye(num_classes)
    wrong = right.roll(1, 1) if pairwise else (1 - right) / (num_classes - 1)
    return (1 - rate) * right + rate * wrong


def long_tail(labels: Tensor, ratio: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return the ascending indices of a subset whose class counts fall by a constant factor from n to n / ratio.

    n is the count of the smallest class, so that class 0 keeps all its samples if classes are equally large. Each class
    keeps at least one sample (1901.05555).
    """
    most = int(torch.bincount(labels, minlength=num_classes).min())
    kept = []
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        count = max(1, int(most * ratio ** (-label / (num_classes - 1))))
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values


def outliers(images: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace round(rate N) images by uniform noise; return all images, and the ascending indices of those."""
    chosen = torch.randperm(len(images), generator=generator)[: round(rate * len(images))].sort().values
    noise = torch.randint(0, 256, (len(chosen), *images.shape[1:]), dtype=torch.uint8, generator=generator)
    return images.index_put((chosen,), noise), chosen
