"""Regression losses on classes: distances between the model's output and the one-hot target.

MSE, Huber and the square in Squentropy act on logits. MAE and Brier act on probabilities, so their gradients vanish
where softmax saturates.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Loss
from lossfit.ranges import Positive, checked


class MSE(Loss):
    """sum_k (z_k - q_k)^2 / C on logits; scaled: [k (z_y - M)^2 + sum_{j != y} z_j^2] / C (2006.07322).

    The value of a wrong answer grows with the square of its distance, so outliers weigh heavily.
    Competitive with cross-entropy on few classes; with many, use the scaled form. k > 0: weight of the
    true class's term; M > 0: target value of its logit; k = M = 1 is plain MSE. Its gradient is a
    fifth of cross-entropy's at the start: under plain SGD use a learning rate 5 times as large.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        k: Positive = 1.0,
        M: Positive = 1.0,  # noqa: N803  # the paper's name
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        self.k, self.M = k, M

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,); between one-hot targets the term's weight goes from 1 to k in proportion."""
        weight = 1 + (self.k - 1) * target
        return (weight * (logits - self.M * target).square()).mean(1)


class Huber(Loss):
    """mean_k of (z_k - q_k)^2 / 2 within delta of the target, delta (|z_k - q_k| - delta / 2) beyond it (Huber 1964).

    Squared error for small errors, absolute error for large ones, so an outlier's gradient is bounded. delta > 0,
    in units of a logit; large delta is MSE / 2, small delta is delta times the mean absolute error of the logits.
    Its gradient is a tenth of cross-entropy's: under plain SGD use a learning rate 10 times as large.
    """

    @checked
    def __init__(self, num_classes: int, delta: Positive = 1.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.delta = delta

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return F.huber_loss(logits, target, reduction="none", delta=self.delta).mean(1)


class MAE(Loss):
    """sum_k |p_k - q_k| with p = softmax(z); 2 (1 - p_y) for hard labels (1712.09482).

    Every sample's value is at most 2, and a confidently wrong one has almost no gradient: wrong labels are
    ignored rather than fitted, and for the same reason it learns slowly, and with many classes may not
    start at all. For clean labels use cross-entropy. Under plain SGD use a learning rate 3 times as
    large.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return (logits.softmax(1) - target).abs().sum(1)


class Brier(Loss):
    """sum_k (p_k - q_k)^2 with p = softmax(z): the squared error of the probabilities (Brier 1950).

    A proper score, so the true probabilities minimise it, and bounded by 2, so a wrong label does limited
    harm. Its gradient nearly vanishes on confidently wrong samples. Good for calibration; slower than
    cross-entropy: under plain SGD use a learning rate 5 times as large.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return (logits.softmax(1) - target).square().sum(1)


class Squentropy(HardLabelLoss):
    """Cross-entropy + sum_{j != y} z_j^2 / (C - 1): the wrong classes' logits are pulled to 0 (2302.03952).

    Learns as fast as cross-entropy at the start, and the square keeps the logits bounded at the end; accuracy and
    calibration are at least cross-entropy's on many data sets, with nothing to tune. Takes class indices only.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        square = ((1 - target) * logits.square()).sum(1) / (self.num_classes - 1)
        return F.cross_entropy(logits, target, reduction="none") + square
