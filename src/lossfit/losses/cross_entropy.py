"""Softmax cross-entropy, with and without label smoothing."""

import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import Loss


class CrossEntropy(Loss):
    """-sum_k q_k log p_k with p = softmax(z): the negative log-likelihood of the labels.

    The default choice: its gradient p - q is large exactly where the model is confidently wrong. With two
    classes it is binary cross-entropy on the difference of the logits. smoothing > 0 keeps the model from
    becoming over-confident and helps calibration and accuracy a little (1512.00567), but its floor is then
    not 0 (0.500 for smoothing 0.1 and 10 classes). Not for labels that are often wrong: it fits them.
    """

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) -> (N,)."""
        return F.cross_entropy(logits, target, reduction="none")
