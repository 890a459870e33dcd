"""The range of an argument, stated once, in its annotation.

    @checked
    def __init__(self, gamma: Annotated[float, at_least(0)] = 2.0) -> None: ...

`checked` makes a call with a value out of range raise `ValueError("gamma must be >= 0, got -1")`, and `config.check`
reads the same annotation, so that a config is refused with all of its mistakes at once. Imports no torch.
"""

import functools
import inspect
import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """The numbers from low to high; the ends belong to them unless they are open. NaN is in no range."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        """The range in words, after `must be`."""
        if self.high == math.inf:
            return f"{'>' if self.low_open else '>='} {self.low:g}"
        if self.low == -math.inf:
            return f"{'<' if self.high_open else '<='} {self.high:g}"
        if not self.low_open and not self.high_open:
            return f"from {self.low:g} to {self.high:g}"
        low, high = ("above" if self.low_open else "at least"), ("below" if self.high_open else "at most")
        return f"{low} {self.low:g} and {high} {self.high:g}"


def at_least(low: float) -> Range:
    """Return the numbers >= low."""
    return Range(low)


def above(low: float) -> Range:
    """Return the numbers > low."""
    return Range(low, low_open=True)


def problem(name: str, value: Any, annotation: Any) -> str | None:
    """Say what is wrong with a value for an argument of this annotation; None if it is in range or there is none.

    Null is in every range; of a list or tuple each item must be in the range. Types are not looked at.
    """
    for found in _ranges(annotation):
        items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        numbers = [item for item in items if isinstance(item, int | float) and not isinstance(item, bool)]
        if any(number not in found for number in numbers):
            return f"{name} must be {found}, got {value!r}"
    return None


def checked(function: F) -> F:
    """Make a function raise ValueError for arguments that are out of the ranges of their annotations."""
    signature = inspect.signature(function)
    annotations: dict[str, Any] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not annotations:
            annotations.update(typing.get_type_hints(function, include_extras=True))
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in annotations and (wrong := problem(name, value, annotations[name])):
                raise ValueError(wrong)
        return function(*args, **kwargs)

    return typing.cast(F, call)


def _ranges(annotation: Any) -> list[Range]:
    """Return the ranges in an annotation, also within a union such as `Annotated[float, at_least(0)] | None`."""
    found = [item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Range)]
    return found + [one for inner in typing.get_args(annotation) for one in _ranges(inner)]
