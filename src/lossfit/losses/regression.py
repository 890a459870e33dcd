"""Regression losses: distances between the outputs and the target, for values and for classes.

Values have a row of numbers as their target, and a class has its one-hot row. MSE and Huber take both alike: for
classes they are regression of the logits onto one-hot rows. MAE, for classes, and Brier compare probabilities with
these rows, so their gradients vanish where softmax saturates. Brier and Squentropy are for classes only.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Loss
from lossfit.ranges import Positive, checked

VALUES_OR_CLASSES = ("classification", "regression")


class MSE(Loss):
    """mean_k of (z_k - q_k)^2, values or one-hot; scaled: [k (z_y - M)^2 + sum_{j != y} z_j^2] / C (2006.07322).

    An error weighs by its square, and its gradient grows with it, so a few outliers decide. For values it is the
    choice for noise without outliers: the mean of the targets minimises it. With outliers take mae or huber.

    For classes it is the same regression, of the logits onto one-hot rows. Competitive with cross-entropy on few
    classes; with many, use the scaled form. k > 0: weight of the true class's term; M > 0: target value of its logit;
    k = M = 1 is plain MSE, and the only choice for values. Its gradient is a fifth of cross-entropy's at the start:
    under plain SGD use a learning rate 5 times as large.
    """

    tasks = VALUES_OR_CLASSES

    @checked
    def __init__(
        self,
        num_classes: int,
        k: Positive = 1.0,
        M: Positive = 1.0,  # noqa: N803  # the paper's name
        **options: Any,
    ) -> None:
        super().__init__(num_classes, **options)
        for name, value in (("k", k), ("M", M)):
            if self.task == "regression" and value != 1:
                raise ValueError(f"{name} must be 1 for values, since it scales the true class, got {value}")
        self.k, self.M = k, M

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) values or one-hot -> (N,); between one-hot rows a weight goes from 1 to k in proportion."""
        if self.k == self.M == 1:
            return (outputs - target).square().mean(1)
        weight = 1 + (self.k - 1) * target
        return (weight * (outputs - self.M * target).square()).mean(1)


class Huber(Loss):
    """mean_k of r_k^2 / 2 within delta, delta (|r_k| - delta / 2) beyond it, r = z - q, values or one-hot (Huber 1964).

    Squared error for small errors, absolute error for large ones, so an outlier's gradient is bounded. delta > 0: the
    error at which it changes, in units of the training targets' scale for values and in units of a logit for
    classes. Set it above the usual noise and below the outliers. Large delta is MSE / 2; small delta is delta times the
    mean absolute error (for classes, of the logits).

    For classes its gradient is a tenth of cross-entropy's: under plain SGD use a learning rate 10 times as large.
    """

    tasks = VALUES_OR_CLASSES

    @checked
    def __init__(self, num_classes: int, delta: Positive = 1.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.delta = delta

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) values or one-hot -> (N,)."""
        return F.huber_loss(outputs, target, reduction="none", delta=self.delta).mean(1)


class MAE(Loss):
    """mean_k of |z_k - q_k| for values; for classes sum_k |p_k - q_k|, p = softmax(z): 2 (1 - p_y) for hard labels.

    For values, all errors have a gradient of the same size, so outliers do not decide: the median of the targets
    minimises it. But that gradient is as large just before the minimum, so lower the learning rate at the end, or take
    huber. Where errors above and below cost differently, take quantile.

    For classes (1712.09482) every sample's value is at most 2, and a confidently wrong one has almost no gradient:
    wrong labels are ignored rather than fitted, and for the same reason it learns slowly, and with many classes may
    not start at all. The gradient by z_y is -2 p_y (1 - p_y), so a class that soon has little probability is never
    predicted. Start from the weights of a few epochs of cross-entropy (init_from), or take nce_rce, sce or gce. For
    clean labels use cross-entropy. Under plain SGD use a learning rate 3 times as large.
    """

    tasks = VALUES_OR_CLASSES

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, K), (N, K) values or one-hot -> (N,)."""
        if self.task == "regression":
            return (outputs - target).abs().mean(1)
        return (outputs.softmax(1) - target).abs().sum(1)


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

    Learns as fast as cross-entropy at the start, and the square keeps the logits bounded at the end, with nothing to
    tune. In the paper accuracy and calibration are at least cross-entropy's on many data sets; after a training in
    which cross-entropy is only a little too sure, its probabilities are too low. Takes class indices only.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        square = ((1 - target) * logits.square()).sum(1) / (self.num_classes - 1)
        return F.cross_entropy(logits, target, reduction="none") + square
