"""What can be wrong with a training set, on purpose: wrong labels, rare classes, images that show nothing.

Each function takes a generator and returns what was changed, so that it can be written down.
Shapes: images (N, C, H, W) uint8, labels (N,) int64.
"""

import torch
from torch import Tensor


def noisy_labels(labels: Tensor, rate: float, pairwise: bool, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return labels of which exactly round(rate N), chosen at random, are wrong.

    Symmetric: a wrong label is any other class alike. Pairwise: it is the next class, k + 1, as confusions of
    like with like are.
    """
    chosen = torch.randperm(len(labels), generator=generator)[: round(rate * len(labels))]
    shift = torch.ones(len(chosen), dtype=torch.long)
    if not pairwise:
        shift = torch.randint(1, num_classes, (len(chosen),), generator=generator)
    return labels.index_put((chosen,), (labels[chosen] + shift) % num_classes)


def long_tail(labels: Tensor, ratio: float, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return the ascending indices of a subset whose class counts fall evenly from n to n / ratio (1901.05555).

    n is the smallest class's count, so that classes of equal size keep all of class 0; each keeps at least one sample.
    """
    most = int(torch.bincount(labels, minlength=num_classes).min())
    kept = []
    for label in range(num_classes):
        members = (labels == label).nonzero().squeeze(1)
        count = max(1, int(most * ratio ** (-label / (num_classes - 1))))
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(kept).sort().values


def outliers(images: Tensor, rate: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace round(rate N) images by uniform noise; return the images and the ascending indices of those."""
    chosen = torch.randperm(len(images), generator=generator)[: round(rate * len(images))].sort().values
    noise = torch.randint(0, 256, (len(chosen), *images.shape[1:]), dtype=torch.uint8, generator=generator)
    return images.index_put((chosen,), noise), chosen
