"""The values that an argument may have, stated once, in its annotation.

    @checked
    def __init__(self, gamma: NonNegative = 2.0, p: Annotated[float, Range(1, 2)] = 1.0) -> None: ...

`checked` makes a call with another value raise `ValueError("gamma must be >= 0, got -1")`, and `config.check` reads the
same annotation, so that a config is refused with all of its mistakes at once. Imports no torch.
"""

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Range:
    """The finite numbers from low to high; an open end is not in the range."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return -math.inf < value < math.inf and above and below  # all are false for NaN

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


@dataclass(frozen=True)
class Ascending:
    """Two numbers, of which the first is not larger than the second."""

    def __contains__(self, value: Any) -> bool:
        return len(value) == 2 and value[0] <= value[1]

    def __str__(self) -> str:
        """The rule in words, after `must be`."""
        return "two numbers, the smaller one first"


def at_least(low: float) -> Range:
    """Return the numbers >= low."""
    return Range(low)


def above(low: float) -> Range:
    """Return the numbers > low."""
    return Range(low, low_open=True)


NonNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, above(0)]
From0To1 = Annotated[float, Range(0, 1)]
From0Below1 = Annotated[float, Range(0, 1, high_open=True)]
Between0And1 = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Count = Annotated[int, at_least(1)]


def problem(name: str, value: Any, annotation: Any) -> str | None:
    """Say which values an argument of this annotation may have, if `value` is not one of them; else return None.

    Looks at ranges and Literals, not at types. In a list or tuple each number must be in the range.
    """
    return _problem(name, value, list(_marks(annotation)), list(_types(annotation)))


def _problem(name: str, value: Any, marks: Sequence[Range | Ascending], types_: Sequence[Any]) -> str | None:
    ranges = [one for one in marks if isinstance(one, Range)]
    choices = [choice for one in types_ if typing.get_origin(one) is Literal for choice in one.__args__]
    if not _is_out_of_range(value, ranges) and not (choices and _is_no_choice(value, choices, types_)):
        pairs = [one for one in marks if isinstance(one, Ascending)] if _is_numbers(value) else []
        return next((f"{name} must be {one}, got {value!r}" for one in pairs if value not in one), None)
    allowed = [*map(str, ranges), *map(repr, choices), *["null" for one in types_ if one is types.NoneType]]
    finite = "finite and " if isinstance(value, float) and math.isinf(value) else ""
    return f"{name} must be {finite}{' or '.join(dict.fromkeys(allowed))}, got {value!r}"


def _is_out_of_range(value: Any, ranges: Sequence[Range]) -> bool:
    items = value if _is_list(value) else [value]
    return any(item not in one for one in ranges for item in items if _is_number(item))


def _is_no_choice(value: Any, choices: Sequence[Any], allowed_types: Sequence[Any]) -> bool:
    """Whether a text or a number is neither one of the choices nor of another type that is allowed beside them."""
    if value in choices:
        return False
    if isinstance(value, str):
        return str not in allowed_types
    return _is_number(value) and not {int, float} & {*allowed_types}


def checked(function: F) -> F:
    """Make a function raise ValueError for arguments that its annotations do not allow."""
    signature = inspect.signature(function)
    allowed: dict[str, tuple[list[Any], list[Any]]] = {}  # marks and types, computed once: rules are called often

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not allowed:
            hints = typing.get_type_hints(function, include_extras=True).items()
            allowed.update({name: (list(_marks(hint)), list(_types(hint))) for name, hint in hints})
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in allowed and (wrong := _problem(name, value, *allowed[name])):
                raise ValueError(wrong)
        return function(*args, **kwargs)

    return typing.cast(F, call)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_numbers(value: Any) -> bool:
    return _is_list(value) and all(map(_is_number, value))


def _types(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union, without what Annotated adds to them."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in typing.get_args(annotation):
            yield from _types(option)
    elif origin is Annotated:
        yield from _types(annotation.__origin__)
    else:
        yield annotation


def _marks(annotation: Any) -> Iterator[Range | Ascending]:
    """Yield what Annotated adds, also within unions and `Sequence[Annotated[float, at_least(0)]]`."""
    yield from (item for item in getattr(annotation, "__metadata__", ()) if isinstance(item, Range | Ascending))
    for inner in typing.get_args(annotation):
        yield from _marks(inner)
