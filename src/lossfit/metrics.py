"""What is measured on a split: loss, negative log-likelihood, accuracy, confusion."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class Evaluation(Metric):
    """Sums over the samples of one split; exact under DDP, where torchmetrics adds the ranks' sums.

    compute() returns loss (the configured one, without training's weights and smoothing), nll (the mean of
    -log softmax(z)_y, in nats, whatever the loss) and acc (the fraction of samples whose largest logit is the
    label's), scalars each, and confusion (C, C): how often the row's class was taken for the column's.
    """

    full_state_update = False
    confusion: Tensor
    sums: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(2), dist_reduce_fx="sum")  # of loss and nll

    def update(self, loss: Tensor, logits: Tensor, target: Tensor) -> None:
        """Add a batch: its mean loss, (N, C) logits and (N,) labels."""
        nll = F.cross_entropy(logits.float(), target, reduction="sum")
        self.sums += torch.stack([loss.float() * len(target), nll])
        cells = target * len(self.confusion) + logits.argmax(1)
        self.confusion += torch.bincount(cells, minlength=self.confusion.numel()).view_as(self.confusion)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name."""
        count = self.confusion.sum()
        loss, nll = self.sums / count
        return {"loss": loss, "nll": nll, "acc": self.confusion.trace() / count, "confusion": self.confusion}
