"""Focal loss: cross-entropy that turns its attention to the samples the model finds hard."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossfit.losses.loss import Loss


class Focal(Loss):
    """-sum_k q_k (1 - p_k)^gamma log p_k with p = softmax(z) (1708.02002).

    Well-classified samples count for less: at p_y = 0.9 and gamma = 2 a hundredth of cross-entropy. For
    data in which easy samples drown the rare, hard ones; also known to calibrate better. gamma >= 0: the
    strength; 0 is cross-entropy. For rare classes give `weights` too. Not for wrong labels: they are the
    hardest samples of all.
    """

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: str | Sequence[float] | None = None,
        smoothing: float = 0.0,
        gamma: float = 2.0,
    ) -> None:
        super().__init__(num_classes, class_counts, weights, smoothing)
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma must be >= 0, got {gamma}")
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        log_p = logits.log_softmax(1)
        return -(target * torch.exp(self.gamma * log_one_minus(log_p)) * log_p).sum(1)


def log_one_minus(log_p: Tensor) -> Tensor:
    """Log(1 - p_k) from log-probabilities (N, C), with gradients that stay finite as p_k goes to 1.

    For the largest p_k, which alone can come near 1, it is the logsumexp of the others.
    """
    top = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, log_p.argmax(1, keepdim=True), True)
    others = log_p.masked_fill(top, float("-inf")).logsumexp(1, keepdim=True)
    return torch.where(top, others, torch.log1p(-log_p.masked_fill(top, float("-inf")).exp()))
