"""The confusion matrix of a report: its cells, and the pairs of classes that are confused most."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_NUMBERED = 20  # classes up to which the cells have numbers
MOST_NAMED = 120  # classes up to which rows and columns have names
LEVELS = 10  # of shade, in a matrix without numbers
NAME = 18  # characters of a name beside the matrix


class Pair(NamedTuple):
    """How many images of one class were predicted as another, and their share of the class."""

    true: str
    predicted: str
    images: int
    share: float


class Cell(NamedTuple):
    """A cell of the matrix with at least half a percent of the images of its row."""

    row: int
    column: int
    percent: float
    images: int


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    cells: for numbers. shades: without numbers, the path that draws all cells of each shade, by opacity.
    """

    names: list[str]
    cells: list[Cell]
    shades: list[tuple[float, str]]
    pairs: list[Pair]

    @property
    def labels(self) -> list[str]:
        """The names beside the matrix, shortened; none if they could not be read."""
        if len(self.names) > MOST_NAMED:
            return []
        return [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in self.names]


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str], pairs: int = 12) -> Confusion:
    """Return the matrix of counts (C, C), rows the true class, columns the predicted one."""
    cells = list(_cells(counts))
    shades: list[tuple[float, str]] = []
    if len(names) > MOST_NUMBERED:
        paths: dict[int, list[str]] = {}
        for cell in cells:
            level = max(1, round(math.sqrt(cell.percent / 100) * LEVELS))  # of 1%, still seen
            paths.setdefault(level, []).append(f"M{cell.column} {cell.row}h1v1h-1z")
        shades = [(level / LEVELS, "".join(path)) for level, path in sorted(paths.items())]
        cells = []
    wrong = sorted(_pairs(counts, names), key=lambda pair: -pair.images)
    return Confusion(list(names), cells, shades, wrong[:pairs])


def _cells(counts: Sequence[Sequence[int]]) -> Iterator[Cell]:
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            percent = 100 * count / max(1, sum(row))
            if percent >= 0.5:
                yield Cell(i, j, percent, count)


def _pairs(counts: Sequence[Sequence[int]], names: Sequence[str]) -> Iterator[Pair]:
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            if i != j and count:
                yield Pair(names[i], names[j], count, count / sum(row))
