"""Losses that stay bounded where cross-entropy does not, for labels that are often wrong."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lossfit.losses.loss import Loss, Weights


class GeneralizedCrossEntropy(Loss):
    """sum_k q_k (1 - p_k^q) / q: between cross-entropy (q -> 0) and 1 - p_y (q = 1) (1805.07836).

    The larger q, the less a sample that contradicts the model pulls: wrong labels are learnt late or never, and hard
    right ones too. q in (0, 1]. Starts slowly: under plain SGD take a learning rate 5 times as large. For clean labels
    take cross-entropy.
    """

    def __init__(self, num_classes: int, q: float = 0.7, **common: Any) -> None:
        super().__init__(num_classes, **common)
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        self.q = q

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return -(target * torch.expm1(self.q * logits.log_softmax(1))).sum(1) / self.q


class SymmetricCrossEntropy(Loss):
    """a CE(q, p) + b RCE, RCE = -A (1 - p_y): cross-entropy both ways round (1908.06112).

    The reverse term is bounded, like MAE, and ignores what contradicts the model; the forward term keeps it
    learning. a, b >= 0: their shares; A < 0 stands for log 0. With b = 0 it is a times cross-entropy. Takes
    class indices only.
    """

    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        a: float = 0.1,
        b: float = 1.0,
        A: float = -4.0,  # noqa: N803  # the paper's name
    ) -> None:
        super().__init__(num_classes, class_counts, weights)
        for name, value in (("a", a), ("b", b)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be >= 0, got {value}")
        if not float("-inf") < A < 0:
            raise ValueError(f"A must be < 0, got {A}")
        self.a, self.b, self.A = a, b, A

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        log_p = (target * logits.log_softmax(1)).sum(1)
        return -self.a * log_p + self.b * self.A * torch.expm1(log_p)


class BiTempered(Loss):
    """Bregman divergence of tempered logarithms, with a heavy-tailed softmax (1906.03361).

    t1 in [0, 1] bounds the loss of far outliers, and t2 >= 1 makes the softmax's tails heavy, so that wrong labels near
    the boundary bend it less. t1 = t2 = 1 is cross-entropy (less the target's entropy). iterations: steps of the
    fixed-point search for the normaliser, >= 1; five suffice for ten classes. Costs several times cross-entropy.
    """

    def __init__(self, num_classes: int, t1: float = 0.8, t2: float = 1.4, iterations: int = 5, **common: Any) -> None:
        super().__init__(num_classes, **common)
        if not 0 <= t1 <= 1:
            raise ValueError(f"t1 must be in [0, 1], got {t1}")
        if not 1 <= t2 < float("inf"):
            raise ValueError(f"t2 must be >= 1, got {t2}")
        if iterations < 1:
            raise ValueError(f"iterations must be >= 1, got {iterations}")
        self.t1, self.t2, self.iterations = t1, t2, iterations

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        log_p = tempered_log_softmax(logits, self.t2, self.iterations)
        power = 2 - self.t1
        if self.t1 == 1:
            gain = torch.xlogy(target, target) - target * log_p
        else:
            rest = 1 - self.t1
            gain = target * (target**rest - 1 - torch.expm1(rest * log_p)) / rest
        return (gain - (target**power - torch.exp(power * log_p)) / power).sum(1)


def tempered_log_softmax(logits: Tensor, t: float, iterations: int) -> Tensor:
    """Logarithms of probabilities (N, C) that sum to 1 and whose tails fall like z^(-1 / (t - 1)); t = 1 is softmax.

    The normaliser is found by the paper's fixed-point iteration, through which autograd differentiates.
    """
    if t == 1:
        return logits.log_softmax(1)

    def log_exp_t(x: Tensor) -> Tensor:  # of the tempered exponential, for x <= 0
        return torch.log1p((1 - t) * x) / (1 - t)

    centred = logits - logits.amax(1, keepdim=True)
    scaled = centred
    for _ in range(iterations):
        scaled = centred * torch.exp((1 - t) * log_exp_t(scaled).logsumexp(1, keepdim=True))
    log_total = log_exp_t(scaled).logsumexp(1, keepdim=True)
    return log_exp_t(centred + torch.expm1((t - 1) * log_total) / (1 - t))
