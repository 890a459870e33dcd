"""Losses that know what each mistake costs: C[y, k] is the cost of taking class y for class k, 0 on the diagonal.

The matrix comes from the config's `costs`, by class names; without any, every mistake costs 1.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.focal import log_one_minus
from lossfit.losses.loss import Loss


class ExpectedCost(Loss):
    """sum_k C[y, k] p_k with p = softmax(z): what the prediction would cost on average (Elkan 2001).

    The thing itself rather than a stand-in: mistakes that cost nothing are not punished. But its gradient
    vanishes on confidently wrong samples, as MAE's does, so it learns slowly: under plain SGD take a learning
    rate 5 times as large, or take log_bilinear, or cross-entropy with cost-aware decisions, which often is as
    good. With 0/1 costs it is 1 - p_y.
    """

    def __init__(self, num_classes: int, cost_matrix: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__(num_classes)
        self.cost = cost_tensor(cost_matrix, num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        self.cost = self.cost.to(logits)
        return (target @ self.cost * logits.softmax(1)).sum(1)


class LogBilinear(Loss):
    """Cross-entropy - a sum_k C[y, k] log(1 - p_k): each rival is pushed down as its cost demands (1704.06062).

    Keeps cross-entropy's strong gradients, and those of the cost term grow where a costly mistake is likely. a
    >= 0: the costs' share; 0 is cross-entropy.
    """

    def __init__(self, num_classes: int, cost_matrix: Sequence[Sequence[float]] | None = None, a: float = 1.0) -> None:
        super().__init__(num_classes)
        if not 0 <= a < float("inf"):
            raise ValueError(f"a must be >= 0, got {a}")
        self.a = a
        self.cost = cost_tensor(cost_matrix, num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        self.cost = self.cost.to(logits)
        missed = (target @ self.cost * log_one_minus(logits.log_softmax(1))).sum(1)
        return F.cross_entropy(logits, target, reduction="none") - self.a * missed


def cost_tensor(cost_matrix: Sequence[Sequence[float]] | None, num_classes: int) -> Tensor:
    """Return (C, C) costs, 0/1 where none are given."""
    if cost_matrix is None:
        return 1 - torch.eye(num_classes)
    return torch.tensor(cost_matrix, dtype=torch.float32)
