"""Noise correction: for wrong labels of which it is known how often each class is mistaken for each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.errors import did_you_mean
from lossfit.losses.loss import Loss
from lossfit.ranges import From0To1, checked


class ForwardCorrection(Loss):
    """-sum_k q_k log (T^t p)_k, p = softmax(z), T[i, k] the share of class i that is labelled k (1609.03683).

    T^t p is the distribution of the labels as they are given, wrong ones included. It is fitted to them, and p then is
    that of the right labels: with the right T and enough data, the minimum is that of cross-entropy on right labels. T
    acts in training only: in validation the loss is cross-entropy. noise: the share of wrong labels in [0, 1], any
    other class equally often; or {true class: {label: share}} of the wrong labels, those left out being 0; or a JSON
    file with such a mapping, which scripts/noise_matrix.py estimates from a run; null for that of data.label_noise. 0
    is cross-entropy. Not where the noise is not known: a wrong T misleads, and gce or sce need none. A step needs C
    times the memory of the logits.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        noise_matrix: Sequence[Sequence[float]] | None = None,
        noise: From0To1 | Mapping[str, Mapping[str, float]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        if noise is None and noise_matrix is None:
            raise ValueError(
                "noise must be given where data.label_noise is 0: the share of wrong labels, true class -> label -> "
                "share, or the file that scripts/noise_matrix.py writes"
            )
        names = class_names or [str(k) for k in range(num_classes)]
        matrix = torch.tensor(noise_matrix if noise is None else transitions(noise, names)).double()
        if torch.linalg.matrix_rank(matrix, rtol=1e-6) < num_classes:
            of = "data.label_noise" if noise is None else noise
            raise ValueError(f"noise must leave labels that tell the classes apart, got {of}, whose matrix is singular")
        self.log_t = matrix.log().float()  # (C true, C given)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        if not self.training:
            return F.cross_entropy(logits, target, reduction="none")
        log_given = (logits.log_softmax(1).unsqueeze(2) + self.log_t).logsumexp(1)  # finite where p is rounded to 0
        return -(target * log_given).sum(1)


def transitions(noise: float | Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> list[list[float]]:
    """Return T[true][given], whose rows sum to 1, from the share of wrong labels or the shares by class names."""
    if not isinstance(noise, Mapping):
        others = noise / (len(classes) - 1)
        return [[1 - noise if given == true else others for given in classes] for true in classes]
    matrix = [[float(given == true) for given in classes] for true in classes]
    for true, shares in noise.items():
        row = matrix[_number(true, classes)]
        if not isinstance(shares, Mapping):
            raise ValueError(f"noise must be {{true class: {{label: share}}}}, got {true}: {shares!r}")
        for given, share in shares.items():
            if str(given) == str(true):
                raise ValueError(f"noise must have the other labels of {true} only: leave out {true}.{given}")
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ValueError(f"noise must have shares from 0 to 1, got {share!r} for {true}.{given}")
            row[_number(given, classes)] = float(share)
        wrong = sum(shares.values())
        if wrong > 1:
            raise ValueError(f"noise must have shares that sum to at most 1, got {wrong:g} for {true}")
        row[_number(true, classes)] = 1 - wrong
    return matrix


def _number(name: object, classes: Sequence[str]) -> int:
    name = str(name)  # a class 0 is a number in YAML
    if name not in classes:
        raise ValueError(f"noise must have names of classes, got {name}{did_you_mean(name, classes)}")
    return classes.index(name)


@checked
def from_anchors(probabilities: Tensor, percentile: From0To1) -> Tensor:
    """Return the estimate (C, C) of T from the probabilities (N, C) of a model that was trained on the given labels.

    Row i are the probabilities of class i's anchor: of the images, ordered by p_i, the one at this share from below.
    1 is the image that the model is surest of, and 0.97 is less easily an outlier (1609.03683). The images need no
    labels. Where images of a class are not certain to be of it, the estimate has too much noise.
    """
    position = round(percentile * (len(probabilities) - 1))
    return probabilities[probabilities.argsort(0)[position]]
