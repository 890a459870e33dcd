"""Focal losses: cross-entropy in which well-classified samples or classes count for less."""

from typing import Any

import torch
from torch import Tensor

from lossfit.losses.loss import Loss
from lossfit.ranges import From0Below1, NonNegative, checked


class Focal(Loss):
    """-sum_k q_k (1 - p_k)^gamma log p_k with p = softmax(z) (1708.02002).

    Well-classified samples count for less: at p_y = 0.9 and gamma = 2 a hundredth of cross-entropy. For data
    in which many easy samples outweigh a few hard ones. Its probabilities are lower than cross-entropy's, often
    too low. gamma >= 0: the strength; 0 is cross-entropy. For rare classes give `weights` too. Not for wrong
    labels: they are the hardest samples of all.
    """

    @checked
    def __init__(self, num_classes: int, gamma: NonNegative = 2.0, **options: Any) -> None:
        super().__init__(num_classes, **options)
        self.gamma = gamma

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        log_p = logits.log_softmax(1)
        return -(target * torch.exp(self.gamma * log_one_minus(log_p)) * log_p).sum(1)


class Asymmetric(Loss):
    """-sum_k q_k w_k log p_k, w_y = (1 - p_y)^gamma_pos and w_k = p_k^gamma_neg for the others (2009.14119).

    The single-label form: smoothing gives the wrong classes a little target probability, and gamma_neg reduces
    their terms where the class is improbable anyway, so that easy negatives count for little. gamma_pos,
    gamma_neg >= 0; with both 0 it is cross-entropy with that smoothing, and without smoothing the wrong
    classes' terms are 0. Takes class indices only. For several labels an image there is asymmetric_bce.
    """

    soft_targets = False

    @checked
    def __init__(
        self,
        num_classes: int,
        smoothing: From0Below1 = 0.1,
        gamma_pos: NonNegative = 0.0,
        gamma_neg: NonNegative = 4.0,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, smoothing=smoothing, **options)
        self.gamma_pos, self.gamma_neg = gamma_pos, gamma_neg

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot or smoothed -> (N,)."""
        log_p = logits.log_softmax(1)
        true = target == target.amax(1, keepdim=True)
        focus = torch.where(true, self.gamma_pos * log_one_minus(log_p), self.gamma_neg * log_p)
        return -(target * torch.exp(focus) * log_p).sum(1)


def log_one_minus(log_p: Tensor) -> Tensor:
    """Log(1 - p_k) from log-probabilities (N, C), with gradients that stay finite as p_k goes to 1.

    For the largest p_k, which alone can come near 1, it is the logsumexp of the others.
    """
    top = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, log_p.argmax(1, keepdim=True), True)
    others = log_p.masked_fill(top, float("-inf")).logsumexp(1, keepdim=True)
    return torch.where(top, others, torch.log1p(-log_p.masked_fill(top, float("-inf")).exp()))
