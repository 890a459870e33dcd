"""The contract of a task."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor


class Task:
    """What the targets of a data set are. Holds plain values only.

    A target has a row for each image: see the subclasses. names: of the classes, or of the values.
    """

    name: ClassVar[str]

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def encode(self, target: Tensor) -> Tensor:
        """Return a batch's target as the loss gets it."""
        return target
