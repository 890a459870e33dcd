"""The user's own metric, named by its import path."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lossfit.own_code import locate


class Custom(Metric):
    """Measures validation and test with `function`; logged as val/NAME and test/NAME with the name of the function.

    function: the import path, such as my_metrics.top3, of a callable f(outputs, target) or of a torchmetrics.Metric
    class. A function gets the model's outputs (N, K) float32 and the target as the data have it, for classes logits
    (N, C) and labels (N,) int64, and returns one value for each sample, (N,); the
    mean over the split is logged, exact under DDP. A Metric's update gets the same, and its compute returns a scalar.
    options: keyword arguments of the function or the class.
    """

    full_state_update = False

    def __init__(self, function: str, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        found = locate(function)
        options = dict(options or {})
        self.metric: Metric = MeanMetric(nan_strategy="disable")
        self.per_sample: Callable[..., Any] | None = None
        self.function = function
        if isinstance(found, type) and issubclass(found, Metric):
            self.metric = found(**options)
        else:
            self.per_sample = partial(found, **options)

    def update(self, outputs: Tensor, target: Tensor) -> None:
        """Add a batch: outputs (N, K) and the target."""
        outputs, target = outputs.float().clone(), target.clone()  # the function may change them in place
        if self.per_sample is None:
            self.metric.update(outputs, target)
            return
        values = self.per_sample(outputs, target)
        if not isinstance(values, Tensor) or values.shape != target.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"function={self.function} must return one value a sample, ({len(target)},), got {got}")
        self.metric.update(values.float())

    def compute(self) -> Tensor:
        """Return the metric over all samples."""
        value = torch.as_tensor(self.metric.compute())
        if value.numel() != 1:
            raise ValueError(f"function={self.function} must compute one number, got shape {tuple(value.shape)}")
        return value.float().reshape(())

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        self.metric.reset()
