"""What measures a split while a run trains and tests, a batch after the other, over all ranks."""

from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class Evaluation(Metric):
    """What is measured on one split; exact under DDP, where torchmetrics gathers the states of the ranks.

    compute() returns the metrics, scalars that are logged under their names in metric_names.METRICS, and the tensors
    of `drawn`, of which `Task.figures` makes pictures. torchmetrics makes a scalar of a tensor with one element. A
    metric that the samples do not define, such as r2 of a single one, is left out. `loss` is the configured one,
    without the weights and the smoothing of training.
    """

    full_state_update = False
    drawn: ClassVar[tuple[str, ...]] = ()
    loss_sum: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.kept: dict[str, Tensor] = {}

    def keep(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Keep a row of this shape and type of each sample, in a list of tensors, the state `name`."""
        self.kept[name] = torch.zeros(0, *shape, dtype=dtype)
        self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Start anew. A rank that gets no sample needs the shape and the type of the others' rows to gather them."""
        super().reset()
        for name, none in self.kept.items():
            getattr(self, name).append(none.to(self.device))

    def update(self, loss: Tensor, outputs: Tensor, target: Tensor) -> None:
        """Add a batch: its mean loss, the model's outputs (N, K) and the target as the data have it."""
        self.loss_sum += loss.float() * len(target)
        self.count += len(target)
        self.add(outputs.float(), target)

    def compute(self) -> dict[str, Tensor]:
        """Return what was measured, by name."""
        return {"loss": self.loss_sum / self.count, **self.measured()}

    def add(self, outputs: Tensor, target: Tensor) -> None:
        """Add a batch to the states of the task."""
        raise NotImplementedError

    def measured(self) -> dict[str, Tensor]:
        """Return the task's metrics of all samples."""
        raise NotImplementedError


def gathered(states: list[Tensor] | Tensor) -> Tensor:
    """Return the rows that an Evaluation kept of all batches."""
    return dim_zero_cat(states)


def ranked(scores: Tensor) -> Tensor:
    """(N,) scores -> numbers from 0 to 1 in the same order, equal where the scores are.

    For torchmetrics' ranking metrics, which make probabilities of logits: those of large logits would all be 1.
    """
    return scores.unique(return_inverse=True)[1] / len(scores)
