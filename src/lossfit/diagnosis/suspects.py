"""The training images whose labels a run contradicts most, as its history has them."""

from dataclasses import dataclass
from typing import Any

from lossfit.diagnosis.history import History
from lossfit.plain_values import is_name

MOST = 20  # are read


@dataclass(frozen=True)
class Suspect:
    """An image by its number in the training split, from 0, with its label and the class that is predicted."""

    index: int
    label: str
    predicted: str


def suspects(history: History) -> list[Suspect]:
    """Return the suspects, the worst first; the file of the history may come from anyone."""
    listed: Any = history.facts.get("suspects")
    found = []
    for one in listed[:MOST] if isinstance(listed, list) else ():
        values: list[Any] = (
            [one.get(key) for key in ("index", "label", "predicted")] if isinstance(one, dict) else [None]
        )
        index, *classes = values
        if type(index) is int and 0 <= index < 2**48 and all(map(is_name, classes)):
            found.append(Suspect(index, *classes))
    return found
