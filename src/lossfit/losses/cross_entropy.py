"""Softmax cross-entropy and losses derived from it."""

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss
from lossfit.ranges import NonNegative, at_least, checked


class CrossEntropy(Loss):
    """-sum_k q_k log p_k with p = softmax(z): the negative log-likelihood of the labels.

    The default choice: its gradient p - q is large exactly where the model is confidently wrong. With two
    classes it is binary cross-entropy on the difference of the logits. smoothing > 0 lowers the probabilities of the
    predicted classes (1512.00567), which helps a model that is much too sure and makes others not sure enough. Its
    minimum is then not 0 (0.500 for smoothing 0.1 and 10 classes). weights make rare classes count. Not for
    labels that are often wrong: it fits them.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return F.cross_entropy(logits, target, reduction="none")

    def _batch_loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Take torch's mean for classes without weights: a third of the time that distributions need."""
        weighted = self.training and self.weights is not None
        if self.task != "classification" or target.ndim != 1 or weighted:
            return super()._batch_loss(outputs, target)
        return F.cross_entropy(outputs, target, label_smoothing=self.smoothing if self.training else 0.0)


class KLDivergence(Loss):
    """sum_k q_k (log q_k - log p_k): the Kullback-Leibler divergence of the prediction from the target.

    Cross-entropy minus the target's entropy: the same gradients, and a minimum of 0 also for smoothed or mixed
    targets, so that 0 always means a perfect fit. For hard labels it is cross-entropy. Takes no class weights,
    since it compares distributions. (torch's kl_div with reduction "mean" is C times too small.)
    """

    def __init__(self, num_classes: int, smoothing: float = 0.0) -> None:
        super().__init__(num_classes, smoothing=smoothing)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return (torch.xlogy(target, target) - target * logits.log_softmax(1)).sum(1)


class Poly(Loss):
    """Cross-entropy + epsilon (1 - sum_k q_k p_k): Poly-1, cross-entropy with its first term enlarged (2204.12511).

    The first term of cross-entropy's series in 1 - p_y still has a gradient when a sample is nearly right;
    epsilon > 0 makes it 1 + epsilon times as strong, epsilon = 0 is cross-entropy, and epsilon >= -1. For clean,
    balanced data that cross-entropy fits slowly at the end. Fits wrong labels, as cross-entropy does.
    """

    @checked
    def __init__(self, num_classes: int, epsilon: Annotated[float, at_least(-1)] = 2.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.epsilon = epsilon

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        agreement = (target * logits.softmax(1)).sum(1)
        return F.cross_entropy(logits, target, reduction="none") + self.epsilon * (1 - agreement)


class LogitAdjusted(Loss):
    """Cross-entropy of z + tau log prior in training; predictions use z alone (2007.07314).

    The prior is each class's fraction of the training set. Since the loss adds it in training, the model need not
    learn it, and its predictions suit classes that are equally frequent: the choice for a long tail when every class
    matters the same. tau >= 0: strength of the prior; 0 is cross-entropy, and 1 is balanced softmax (2007.10740), which
    adds the log counts: they differ from the log prior by a constant, which softmax ignores. Not where the test data
    have the training set's class frequencies: there plain cross-entropy is right.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int],
        tau: NonNegative = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, class_counts, **options)
        if min(class_counts) < 1:
            raise ValueError(f"class_counts must be >= 1 for every class to have a prior, got {list(class_counts)}")
        self.tau = tau
        counts = torch.tensor(class_counts).float()
        self.log_prior = (counts / counts.sum()).log()

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        if self.training:
            logits = logits + self.tau * self.log_prior
        return F.cross_entropy(logits, target, reduction="none")
