"""How each metric of metric_names.METRICS is computed on a validation or test split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lossfit.decisions import cheapest
from lossfit.tasks import metric_names


class EvaluatedBatch(NamedTuple):
    """A batch: its mean loss, logits (N, C), labels (N,), the loss's link, and the costs (C, C), zeros without any."""

    loss: Tensor
    logits: Tensor
    target: Tensor
    link: str
    costs: Tensor


# the sum over a batch's samples, of which the metric is the mean over the split
SUMS: dict[str, Callable[[EvaluatedBatch], Tensor]] = {
    "loss": lambda b: b.loss.float() * len(b.target),
    "nll": lambda b: F.cross_entropy(b.logits.float(), b.target, reduction="sum"),
    "cost": lambda b: b.costs[b.target, cheapest(b.logits, b.link, b.costs)].sum(),
}
# f(confusion (C, C), costs (C, C)) -> scalar
FROM_CONFUSION: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "acc": lambda confusion, costs: confusion.trace() / confusion.sum(),
    "cost_argmax": lambda confusion, costs: (costs * confusion).sum() / confusion.sum(),
}


class Evaluation(Metric):
    """Sums over the samples of one split; exact under DDP, where torchmetrics adds the sums of the ranks.

    compute() returns confusion (C, C), how often class `row` was predicted as class `column`, and scalars: loss (the
    configured one, without the weights and the smoothing of training), nll (the mean of -log softmax(z)_y, in nats, for
    every loss) and acc (the fraction of samples whose largest logit is that of the label). With costs (C, C), true
    class by predicted class, also cost, the mean cost of the decisions with the least expected cost by the
    probabilities that `link` makes of the logits, and cost_argmax, that of the most probable classes.
    """

    full_state_update = False
    confusion: Tensor
    sums: Tensor
    costs: Tensor

    def __init__(self, num_classes: int, link: str = "softmax", costs: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        self.link = link
        measured = [key.partition("/")[2] for key in metric_names.keys(("val",), costs=costs is not None)]
        self.summed = [name for name in measured if name in SUMS]
        self.from_confusion = [name for name in measured if name not in SUMS]
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(len(self.summed)), dist_reduce_fx="sum")
        matrix = torch.zeros(num_classes, num_classes) if costs is None else torch.tensor(costs)
        self.register_buffer("costs", matrix, persistent=False)

    def update(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """Add a batch: its mean loss, (N, C) logits and (N,) labels."""
        batch = EvaluatedBatch(loss, logits, target, self.link, self.costs)
        self.sums += torch.stack([SUMS[name](batch) for name in self.summed])
        self.confusion += confusion_matrix(target, logits.argmax(1), len(self.confusion))

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name."""
        means = self.sums / self.confusion.sum()
        found = dict(zip(self.summed, means, strict=True))
        found |= {name: FROM_CONFUSION[name](self.confusion, self.costs) for name in self.from_confusion}
        return found | {"confusion": self.confusion}


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Return counts (C, C), rows the true class, columns the predicted one, of labels and predictions (N,) each."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
