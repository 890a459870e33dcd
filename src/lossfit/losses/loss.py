"""The contract of every loss, and the one place where class weights, label smoothing and the mean are applied.

Shapes: logits (N, C) float; target (N,) int64 class indices, or (N, C) float distributions over the classes
when labels are soft; the result is a scalar. Computed in float32 whatever the precision of the logits (in
float64 if they are). Hard labels and the same labels as one-hot give the same number.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.ranges import From0Below1, checked

Weights = str | Sequence[float] | Mapping[str, float] | None  # what a config can give as class weights


class Loss(nn.Module):
    """A loss is a subclass that defines `per_sample`; this class does the rest.

    weights: one positive number per class, "balanced" for the inverse of the training counts, {beta: b} for the
    inverse of the effective number of samples (1 - b^n) / (1 - b) (1901.05555), or null for none. They are
    scaled so that their mean over the training samples is 1, and the result is the sum of weight times value,
    divided by N. (torch divides by the sum of the batch's weights.) So the loss keeps its scale, and equal
    shards of a batch average exactly, under DDP and accumulation. A soft target's weight is its classes'
    weights in proportion. smoothing: e in [0, 1); the target q becomes (1 - e) q + e / C.

    Weights and smoothing act in training mode only: in eval mode the plain loss is computed, so that
    validation losses can be compared.

    A constant, such as the class weights, is a tensor in a plain attribute: `forward` moves it to the logits' device.
    It is no buffer, because a cast of the module to half precision would round it, and DDP would send it to all ranks
    in every step.
    """

    link = "softmax"  # logits -> probabilities; "sigmoid" where each class is a yes/no question
    soft_targets = True

    @checked
    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        smoothing: From0Below1 = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.smoothing = smoothing
        self.weights = None if weights is None else class_weights(weights, num_classes, class_counts)

    def set_progress(self, progress: float) -> None:
        """Take the fraction of the training that is done, 0 to 1, before each training step; most losses ignore it."""

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the value of each sample, (N, C) logits and (N, C) target distributions -> (N,)."""
        raise NotImplementedError

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        with torch.autocast(logits.device.type, enabled=False):
            self._move_constants(logits.device)
            return self._batch_loss(logits if logits.dtype == torch.float64 else logits.float(), target)

    def _batch_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch whose logits are in float32 or float64."""
        target = self._distribution(target, logits)
        return self._reduce(self.per_sample(logits, self._smooth(target)), target)

    def _move_constants(self, device: torch.device) -> None:
        for name, value in list(vars(self).items()):  # parameters and buffers are not in vars
            if isinstance(value, Tensor) and value.device != device:
                setattr(self, name, value.to(device))

    def _smooth(self, target: Tensor) -> Tensor:
        if not (self.training and self.smoothing):
            return target
        return (1 - self.smoothing) * target + self.smoothing / self.num_classes

    def _reduce(self, values: Tensor, target: Tensor) -> Tensor:
        """Weighted mean of (N,) values; target (N, C), before smoothing."""
        if self.training and self.weights is not None:
            values = values * (target * self.weights).sum(1)
        return values.mean()

    def _distribution(self, target: Tensor, logits: Tensor) -> Tensor:
        """(N,) class indices or (N, C) distributions -> (N, C) distributions."""
        if target.ndim == 1:
            return F.one_hot(target, self.num_classes).to(logits.dtype)
        if not self.soft_targets:
            raise ValueError(f"{type(self).__name__} takes class indices (N,), not soft targets {tuple(target.shape)}")
        return target.to(logits.dtype)


class HardLabelLoss(Loss):
    """A loss that is defined for class indices only, so it takes neither soft targets nor smoothing."""

    soft_targets = False

    def __init__(self, num_classes: int, class_counts: Sequence[int] | None = None, weights: Weights = None) -> None:
        super().__init__(num_classes, class_counts, weights)


def class_weights(
    weights: str | Sequence[float] | Mapping[str, float], num_classes: int, class_counts: Sequence[int] | None
) -> Tensor:
    """Return (C,) weights whose mean over the training samples is 1; without counts, over the classes."""
    by_counts = isinstance(weights, (str, Mapping))
    if by_counts and (class_counts is None or min(class_counts) < 1):
        raise ValueError(f"weights={weights} needs training samples of every class, got the counts {class_counts}")
    counts = torch.ones(num_classes) if class_counts is None else torch.tensor(class_counts).float()
    if weights == "balanced":
        raw = 1 / counts
    elif isinstance(weights, Mapping) and set(weights) == {"beta"} and 0 <= weights["beta"] < 1:
        raw = (1 - weights["beta"]) / -torch.expm1(counts.double() * math.log(weights["beta"] or 1e-300)).float()
    elif by_counts:
        raise ValueError(
            f"weights must be 'balanced', {{beta: 0 to below 1}}, a list of {num_classes} numbers or null, "
            f"got {weights!r}"
        )
    else:
        if len(weights) != num_classes or not all(0 < w < float("inf") for w in weights):  # type: ignore[operator]
            raise ValueError(f"weights must be {num_classes} positive numbers, one per class, got {list(weights)}")
        raw = torch.tensor(weights).float()
    return raw * counts.sum() / (raw * counts).sum()
