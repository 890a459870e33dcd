"""Losses for rare classes: a rare class must lead by a larger margin. See also `weights` and logit_adjusted."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lossfit.losses.loss import HardLabelLoss, Weights
from lossfit.ranges import From0To1, NonNegative, checked

BALANCED = {"beta": 0.9999}  # the paper's weights


class LDAM(HardLabelLoss):
    """Cross-entropy of z - s m_y e_y, m_k proportional to n_k^(-1/4): a rare class must lead by more (1906.07413).

    The margins act on cosines, so the model needs a cosine head: logit_scale, s, is that head's, and a model without
    one is refused (set model.cosine_scale=30). max_margin >= 0: the rarest class's margin, in units of the cosine; 0
    is cross-entropy. The margins act in training only. weights_from: the fraction of the training, 0 to 1, from which
    the weights act; before it all classes weigh the same, so that the features are learned from what is frequent (the
    paper's deferred re-weighting). Do not use it for classes of equal size: it only trains more slowly. Takes
    class indices only.
    """

    @checked
    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int],
        logit_scale: float | None = None,
        max_margin: NonNegative = 0.5,
        weights: Weights = BALANCED,
        weights_from: From0To1 = 0.8,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, class_counts, weights, **options)
        if logit_scale is None:
            raise ValueError("logit_scale must be a cosine head's, and this model has none: set model.cosine_scale=30")
        if min(class_counts) < 1:
            raise ValueError(f"class_counts must be >= 1 for every class to have a margin, got {list(class_counts)}")
        margins = torch.tensor(class_counts).double() ** -0.25
        self.weights_from, self.progress = weights_from, 1.0
        self.margins = logit_scale * max_margin * (margins / margins.max()).float()

    def set_progress(self, progress: float) -> None:
        """Take the fraction of the training that is done, 0 to 1."""
        self.progress = progress

    def _reduce(self, values: Tensor, target: Tensor) -> Tensor:
        return super()._reduce(values, target) if self.progress >= self.weights_from else values.mean()

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N, C), (N, C) one-hot -> (N,)."""
        if self.training:
            logits = logits - target * self.margins
        return F.cross_entropy(logits, target, reduction="none")
