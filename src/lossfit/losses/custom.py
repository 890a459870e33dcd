"""A loss of the user's own, named by its import path."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lossfit.losses.loss import Loss, Weights, full_precision
from lossfit.own_code import locate


class Custom(Loss):
    """Whatever `function` computes: a callable f(logits, target), or an nn.Module class with that forward.

    function: an import path such as my_losses.tempered; the module may lie in the folder that the command
    is run from. It gets logits (N, C) in float32 and the target as the data give it, (N,) int64 or (N, C)
    float, and returns a scalar or one value a sample, (N,). options: keyword arguments, bound to a function
    or given to a class. weights need one value a sample, and act in training mode only.

    Parameters of a class are trained with the model's, without weight decay. A class with an attribute `progress` finds
    the share of the training that is over there, from 0 to 1, before each training step.
    """

    def __init__(
        self,
        function: str,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, class_counts, weights)
        self.function = function
        found, options = locate(function), dict(options or {})
        # either is None, so that a module is registered once
        self.module = found(**options) if isinstance(found, type) and issubclass(found, nn.Module) else None
        self.call: Callable[..., Tensor] | None = partial(found, **options) if self.module is None else None

    def set_progress(self, progress: float) -> None:
        """Tell the class how far the training is."""
        if self.module is not None and hasattr(self.module, "progress"):
            setattr(self.module, "progress", progress)  # noqa: B010  nn.Module's type knows modules and tensors only

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean of what the function gives, or its scalar."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = full_precision(logits)
            values = (self.module or self.call)(logits, target)  # type: ignore[misc]
            if not isinstance(values, Tensor) or values.shape not in ((), logits.shape[:1]):
                got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise ValueError(f"function={self.function} must return a scalar or ({len(logits)},), got {got}")
            if values.ndim:
                return self._reduce(values, self._distribution(target, logits))
            if self.weights is not None:
                raise ValueError(
                    f"weights need a function that returns one value a sample; {self.function} is a scalar"
                )
            return values
