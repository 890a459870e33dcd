"""Regression: D numbers for each image. Target (N, D) float32 in its own unit, outputs in standard deviations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossfit.tasks.task import Task


class Regression(Task):
    """Numbers for each image.

    names, units: of each number; a unit may be empty. mean, std: of each over the training targets, in its own unit.
    """

    name = "regression"

    def __init__(self, names: Sequence[str], units: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(names)
        self.units, self.mean, self.std = tuple(units), tuple(mean), tuple(std)

    def encode(self, target: Tensor) -> Tensor:
        """(N, D) in the targets' own unit -> (N, D) in standard deviations from the mean."""
        mean, std = (torch.tensor(v, dtype=target.dtype, device=target.device) for v in (self.mean, self.std))
        return (target - mean) / std
