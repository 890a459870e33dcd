"""Every metric that lossfit measures: its name, and which way is better. A metric is one entry. Imports no torch.

Keys are `split/name`, such as val/acc. The user's own metrics and the parameters of a loss are logged under their own
names beside these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["min", "max"]


@dataclass(frozen=True)
class MetricName:
    """A metric. splits: those in which it is logged once an epoch. shown: whether the epoch's line and bar show it."""

    name: str
    direction: Direction
    splits: Sequence[str] = ("val", "test")
    shown: Sequence[str] = ()  # the splits whose value the console's line for an epoch has
    needs_costs: bool = False


METRICS = (
    MetricName("loss", "min", ("train", "val", "test"), shown=("train", "val")),
    MetricName("acc", "max", ("train", "val", "test"), shown=("val",)),
    MetricName("nll", "min"),
    MetricName("cost", "min", needs_costs=True),
    MetricName("cost_argmax", "min", needs_costs=True),
)
BUILT_IN = tuple(metric.name for metric in METRICS)
