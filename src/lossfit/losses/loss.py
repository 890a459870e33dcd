"""The contract of every loss, and the one place where class weights, label smoothing and the mean are applied.

What a loss gets, by the task; the result is a scalar:

    classification  logits (N, C) float; target (N,) int64 class indices, or (N, C) float distributions over the
                    classes when labels are soft. Hard labels and the same labels as one-hot give the same number.
    multilabel      logits (N, C) float; target (N, C) float, 1 for each label that the image has, else 0.
    regression      values (N, D) float, or (N, D * outputs_per_target); target (N, D) float. Both are in units of the
                    training targets' scale, counted from their median: see tasks/regression.py.

Computed in float32 whatever the precision of the outputs (in float64 if they are).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.ranges import From0Below1, checked

Weights = str | Sequence[float] | Mapping[str, float] | None  # what a config can give as class weights
Task = Literal["classification", "multilabel", "regression"]


class Loss(nn.Module):
    """A loss is a subclass that defines `per_sample`; this class does the rest.

    weights: one positive number per class, "balanced" for the inverse of the training counts, {beta: b} for the
    inverse of the effective number of samples (1 - b^n) / (1 - b) (1901.05555), or null for none. They are
    scaled so that their mean over the training samples is 1, and the result is the sum of weight times value,
    divided by N. (torch divides by the sum of the batch's weights.) So the loss keeps its scale, and equal
    shards of a batch average exactly, under DDP and accumulation. A soft target's weight is its classes'
    weights in proportion. smoothing: e in [0, 1); the target q becomes (1 - e) q + e / C, and with several labels
    an image (1 - e) q + e / 2, since each is a yes/no question. Weights are for classification only, and smoothing is
    not for regression.

    Weights and smoothing act in training mode only: in eval mode the plain loss is computed, so that
    validation losses can be compared.

    task: what the target is; each loss says for which `tasks` it is, and refuses the others. num_classes: the number
    of outputs of the model.

    A constant, such as the class weights, is a tensor in a plain attribute: `forward` moves it to the outputs' device.
    It is no buffer, because a cast of the module to half precision would round it, and DDP would send it to all ranks
    in every step.
    """

    tasks: tuple[str, ...] = ("classification",)
    outputs_per_target = 1  # outputs of the model for each number of the target
    link = "softmax"  # logits -> probabilities; "sigmoid" where each class is a yes/no question, "identity" for values
    soft_targets = True

    @checked
    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        smoothing: From0Below1 = 0.0,
        task: Task = "classification",
    ) -> None:
        super().__init__()
        if task not in self.tasks:
            raise ValueError(f"{type(self).__name__} is for {' and '.join(self.tasks)}, not for {task}")
        _refuse_options_for_classes(task, weights, smoothing)
        self.task = task
        if task != "classification":
            self.link = {"multilabel": "sigmoid", "regression": "identity"}[task]
        self.num_classes = num_classes
        self.smoothing = smoothing
        self.weights = None if weights is None else class_weights(weights, num_classes, class_counts)

    def set_progress(self, progress: float) -> None:
        """Take the fraction of the training that is done, 0 to 1, before each training step; most losses ignore it."""

    def per_sample(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the value of each sample (N,).

        outputs and target have one row per sample: logits (N, C) with distributions over the classes or labels (N, C),
        or values (N, D) with values (N, D).
        """
        raise NotImplementedError

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        with torch.autocast(outputs.device.type, enabled=False):
            self._move_constants(outputs.device)
            return self._batch_loss(outputs if outputs.dtype == torch.float64 else outputs.float(), target)

    def _batch_loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch whose outputs are in float32 or float64."""
        target = self._rows(target, outputs)
        return self._reduce(self.per_sample(outputs, self._smooth(target)), target)

    def _move_constants(self, device: torch.device) -> None:
        for name, value in list(vars(self).items()):  # parameters and buffers are not in vars
            if isinstance(value, Tensor) and value.device != device:
                setattr(self, name, value.to(device))

    def _smooth(self, target: Tensor) -> Tensor:
        if not (self.training and self.smoothing):
            return target
        answers = 2 if self.task == "multilabel" else self.num_classes
        return (1 - self.smoothing) * target + self.smoothing / answers

    def _reduce(self, values: Tensor, target: Tensor) -> Tensor:
        """Weighted mean of (N,) values; target (N, C) or (N, D), before smoothing."""
        if self.training and self.weights is not None:
            values = values * (target * self.weights).sum(1)
        return values.mean()

    def _rows(self, target: Tensor, outputs: Tensor) -> Tensor:
        """Return the target as a row per sample, in the outputs' dtype: a class becomes its one-hot row (N, C)."""
        if self.task == "classification" and target.ndim == 1:
            return F.one_hot(target, self.num_classes).to(outputs.dtype)
        if self.task == "classification" and not self.soft_targets:
            raise ValueError(f"{type(self).__name__} takes class indices (N,), not soft targets {tuple(target.shape)}")
        if self.task != "classification":
            self._check_shapes(target, outputs)  # outputs (N, 1) and a target (N,) would be broadcast to (N, N)
        return target.to(outputs.dtype)

    def _check_shapes(self, target: Tensor, outputs: Tensor) -> None:
        each = self.outputs_per_target
        if target.ndim != 2 or outputs.shape != (len(target), each * target.shape[1]):
            raise ValueError(
                f"target must be (N, D) for outputs (N, {each if each > 1 else ''}D), "
                f"got {tuple(target.shape)} for {tuple(outputs.shape)}"
            )


class HardLabelLoss(Loss):
    """A loss that is defined for hard labels only, so it takes neither soft targets nor smoothing."""

    soft_targets = False

    def __init__(
        self,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        task: Task = "classification",
    ) -> None:
        super().__init__(num_classes, class_counts, weights, task=task)


class ValueLoss(Loss):
    """A loss that is defined for values only."""

    tasks = ("regression",)

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, task="regression")


def _refuse_options_for_classes(task: Task, weights: Weights, smoothing: float) -> None:
    if task == "multilabel" and weights is not None:
        raise ValueError(
            f"weights must be null where an image has several labels, got {weights!r}: for labels that few images "
            f"have, take loss=asymmetric_bce or loss=focal_bce"
        )
    if task == "regression" and weights is not None:
        raise ValueError(f"weights must be null for values, since they are weights of classes, got {weights!r}")
    if task == "regression" and smoothing:
        raise ValueError(f"smoothing must be 0 for values, since it is for the labels of classes, got {smoothing}")


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
