"""What is measured on a split: loss, negative log-likelihood, accuracy, confusion, and cost where mistakes have one."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lossfit.decisions import cheapest


class Evaluation(Metric):
    """Sums over the samples of one split; exact under DDP, where torchmetrics adds the ranks' sums.

    compute() returns loss (the configured one, without training's weights and smoothing), nll (the mean of
    -log softmax(z)_y, in nats, whatever the loss) and acc (the fraction of samples whose largest logit is the
    label's), scalars each, and confusion (C, C): how often the row's class was taken for the column's. With costs
    (C, C), true class by predicted, also cost, the mean cost of the decisions that are cheapest by the
    probabilities that `link` makes of the logits, and cost_argmax, that of the likeliest classes.
    """

    full_state_update = False
    confusion: Tensor
    sums: Tensor
    costs: Tensor | None

    def __init__(self, num_classes: int, link: str = "softmax", costs: Sequence[Sequence[float]] | None = None) -> None:
        super().__init__()
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(3), dist_reduce_fx="sum")  # of loss, nll and cost
        self.link = link
        self.register_buffer("costs", None if costs is None else torch.tensor(costs), persistent=False)

    def update(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """Add a batch: its mean loss, (N, C) logits and (N,) labels."""
        nll = F.cross_entropy(logits.float(), target, reduction="sum")
        cost = torch.zeros_like(nll)
        if self.costs is not None:
            cost = self.costs[target, cheapest(logits, self.link, self.costs)].sum()
        self.sums += torch.stack([loss.float() * len(target), nll, cost])
        cells = target * len(self.confusion) + logits.argmax(1)
        self.confusion += torch.bincount(cells, minlength=self.confusion.numel()).view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name."""
        count = self.confusion.sum()
        loss, nll, cost = self.sums / count
        found = {"loss": loss, "nll": nll, "acc": self.confusion.trace() / count, "confusion": self.confusion}
        if self.costs is not None:
            found |= {"cost": cost, "cost_argmax": (self.costs * self.confusion).sum() / count}
        return found
