"""Custom loss: the user's own function or module, named by its import path."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from lossfit.losses.loss import Loss, Task, Weights
from lossfit.own_code import locate
from lossfit.tasks.metric_names import TASKS


class Custom(Loss):
    """Whatever `function` computes: a callable f(outputs, target), or an nn.Module class with that forward.

    function: an import path such as my_losses.tempered; the module may be a file in the folder that the command
    is run from. It gets the model's outputs in float32 and the target, and returns a scalar or one value per sample,
    (N,). For classes these are logits (N, C), and (N,) int64 or (N, C) float; for several labels an image, logits
    (N, C) and (N, C) of 0 and 1; for values, (N, D) and (N, D) in units of the training targets' scale,
    counted from their median. options: keyword arguments, bound to a function or given to a class. weights are for
    classes, need one value per sample, and act in training mode only.

    Parameters of a class are trained with the model's, without weight decay. If a class has an attribute `progress`,
    it is set before each training step to the fraction of the training that is done, from 0 to 1.
    """

    tasks = TASKS

    def __init__(
        self,
        function: str,
        num_classes: int,
        class_counts: Sequence[int] | None = None,
        weights: Weights = None,
        options: Mapping[str, Any] | None = None,
        task: Task = "classification",
    ) -> None:
        super().__init__(num_classes, class_counts, weights, task=task)
        self.function = function
        found, options = locate(function), dict(options or {})
        # one of the two is None, so that a module is registered once
        self.module = found(**options) if isinstance(found, type) and issubclass(found, nn.Module) else None
        self.call: Callable[..., Tensor] | None = partial(found, **options) if self.module is None else None

    def set_progress(self, progress: float) -> None:
        """Set the class's `progress`, if it has one."""
        if self.module is not None and hasattr(self.module, "progress"):
            setattr(self.module, "progress", progress)  # noqa: B010  nn.Module's type knows modules and tensors only

    def _batch_loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the function's scalar, or the mean of its values."""
        values = (self.module or self.call)(outputs, target)  # type: ignore[misc]
        if not isinstance(values, Tensor) or values.shape not in ((), outputs.shape[:1]):
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"function={self.function} must return a scalar or ({len(outputs)},), got {got}")
        if values.ndim:
            return self._reduce(values, self._rows(target, outputs))
        if self.weights is not None:
            raise ValueError(f"weights need a function that returns one value per sample; {self.function} is a scalar")
        return values
