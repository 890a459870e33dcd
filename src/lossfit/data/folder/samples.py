"""What a folder or a table says of each image, before anything is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Samples:
    """Images and what is known of each.

    root: the folder that names are relative to. names: of the images, with / between folders. columns: the names of the
    target's columns. cells: for each image the texts of its target, one for each column. given: for each image the
    split that the user put it in; None if there are no splits. where: where an image's target stands, in words, such as
    "row 5"; None for folders. source: in words for people.
    """

    root: Path
    names: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    given: Sequence[str] | None = None
    where: Sequence[str] | None = None
    source: str = ""
    sizes: Sequence[int] = field(default=())  # bytes of each file; empty until `with_sizes`

    def __len__(self) -> int:
        return len(self.names)

    def kept(self, index: Sequence[int]) -> "Samples":
        """Return the samples with these numbers."""
        return replace(
            self,
            names=[self.names[i] for i in index],
            cells=[self.cells[i] for i in index],
            given=None if self.given is None else [self.given[i] for i in index],
            where=None if self.where is None else [self.where[i] for i in index],
            sizes=[self.sizes[i] for i in index] if self.sizes else (),
        )

    def with_sizes(self) -> "Samples":
        """Return the samples with the size of each file; -1 for one that cannot be looked at."""
        return replace(self, sizes=[_size(self.root / name) for name in self.names])

    def told(self, i: int) -> str:
        """Return an image's name for a message, with its row if it is from a table."""
        return self.names[i] if self.where is None else f"{self.where[i]}: {self.names[i]}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # decoding says why it cannot be read
