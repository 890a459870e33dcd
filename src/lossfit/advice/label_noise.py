"""An estimate of how many labels are wrong, from pixels, in seconds.

A cheap model, kernel ridge regression on small pictures of the images, predicts each image from all others: its
leave-one-out predictions have a closed form. Of the images on which it is surest, nearly all would have the predicted
class if the labels were right, so that the share with another label is that of the wrong labels. Images that are hard
for the cheap model look like wrong labels. So two groups are compared, the surest images and the next: the share of
wrong labels is the same in both, and that of hard images rises.

x: features (N, F), k: kernel (N, N), y: one column for each class (N, C).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.advice.facts import LabelNoise
from lossfit.tasks.intervals import proportion

MOST = 3000  # images, whose kernel is inverted in a few seconds
FEWEST = 300  # images, below which nothing is said
SIDE = 14  # pixels of the small pictures
WIDTH = 0.5  # of the kernel, over the median of the squared distances
PENALTY = 3.0  # of the ridge, for a kernel whose diagonal is 1
SUREST = 0.15  # the share of the images in each of the two groups
SURE = 2.0  # standard errors between the two groups, beyond which images are hard
SKILL = 0.1  # the share of the way from guessing to always right that the model must go


def label_noise(x: Tensor, labels: Tensor, classes: int) -> LabelNoise:
    """Estimate the share of wrong labels (N,) of images with features (N, F); N is at most a few thousand."""
    count = len(labels)
    if count < FEWEST:
        return LabelNoise("unknown", images=count)
    scores = left_out(x, F.one_hot(labels, classes).double())
    top = scores.topk(2, dim=1)
    right = top.indices[:, 0] == labels
    agreement = right.double().mean().item()
    chance = torch.bincount(labels).max().item() / count
    if agreement < chance + SKILL * (1 - chance):
        return LabelNoise("unknown", images=count, agreement=agreement)
    group = int(SUREST * count)
    wrong = ~right[(top.values[:, 0] - top.values[:, 1]).argsort(descending=True)]
    first, second = wrong[:group].double().mean().item(), wrong[group : 2 * group].double().mean().item()
    both = (first + second) / 2
    error = math.sqrt(2 * both * (1 - both) / group)
    sample = proportion(int(wrong[:group].sum()), group)
    assert sample is not None
    kind: Literal["estimate", "at most"] = "estimate" if second - first <= SURE * error else "at most"
    return LabelNoise(kind, first, sample["low"], sample["high"], count, agreement)


def features(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> small pictures as rows (N, F), each with mean 0 and length 1."""
    height, width = images.shape[-2:]
    small = F.adaptive_avg_pool2d(images.float(), (min(SIDE, height), min(SIDE, width))).flatten(1).double()
    small = small - small.mean(1, keepdim=True)
    return small / small.norm(dim=1, keepdim=True).clamp_min(1e-9)


def kernel(x: Tensor) -> Tensor:
    """Return how alike each two images are, from 0 to 1."""
    distances = torch.cdist(x, x).square_()
    return torch.exp(-distances / (WIDTH * distances.median().clamp_min(1e-9)))


def left_out(x: Tensor, y: Tensor) -> Tensor:
    """Return for each image the scores (N, C) of a kernel ridge regression on all other images."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel(x) + PENALTY * torch.eye(len(x), dtype=x.dtype)))
    return y - inverse @ (y - y.mean(0)) / inverse.diagonal()[:, None]
