"""Values from files that are not trusted: which are plain or of a shape, how a message shows one; float32's digits."""

import math
import reprlib
from collections.abc import Callable, Iterator
from typing import Any

MAX_DEPTH = 20
MAX_ITEMS = 100_000  # of a list or mapping
MAX_TEXT = 4096  # characters
MODERATE = 1e100  # far beyond the largest number of float32
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a value is a number, a text, null, or a list or mapping of those, of bounded size and depth."""
    if isinstance(value, dict):
        keys = all(type(key) is int or (isinstance(key, str) and len(key) <= MAX_TEXT) for key in value)
        return depth > 0 and keys and len(value) <= MAX_ITEMS and all(is_plain(v, depth - 1) for v in value.values())
    if isinstance(value, list):
        return depth > 0 and len(value) <= MAX_ITEMS and all(is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return value is None or type(value) is bool or is_number(value)


def is_name(value: Any) -> bool:
    """Whether a value can be a name: a printable text that is not long."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def is_number(value: Any) -> bool:
    """Whether a value is an integer of at most 64 bits or a float, NaN and infinities among them."""
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**64)


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number."""
    return is_number(value) and math.isfinite(value)


def is_moderate(value: Any) -> bool:
    """Whether a value is a finite number whose square is finite too, so that means and deviations can be computed."""
    return is_finite(value) and abs(value) <= MODERATE


def float32_digits(value: float) -> float:
    """Round a number to seven significant digits, which is what float32 has."""
    return float(f"{value:.7g}")


def shown(value: Any) -> str:
    """Return a value for a message: in one line, escaped and shortened, whatever its depth."""
    return _SHORT.repr(value).encode("ascii", "backslashreplace").decode()


Shape = tuple[str, Callable[[Any], bool]] | list[Any] | dict[str, Any]
EVERY = "*"  # a key of a shape: of all keys of a mapping, whose names are free


def or_null(shape: tuple[str, Callable[[Any], bool]]) -> tuple[str, Callable[[Any], bool]]:
    """Return the shape of a value that may also be null."""
    words, fits = shape
    return f"{words} or null", lambda value: value is None or fits(value)


COUNT: Shape = ("a whole number >= 0", lambda value: type(value) is int and 0 <= value < 2**53)
NUMBER = ("a finite number", is_moderate)
TEXT = ("a text", lambda value: isinstance(value, str))
ANYTHING = ("anything", lambda value: True)


def mistake(value: Any, shape: Shape, where: str = "") -> str | None:
    """Return the first thing in which a value, read from JSON, differs from a shape; None if there is none.

    A shape is what the value must be, in words and as a function; or [shape], for a list of such values; or a mapping
    from each key that there must be, or from EVERY, to the shape of its value. where: the place of the value, for the
    message.
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{where or 'it'} must be a list, got {shown(value)}"
        return _first(mistake(one, shape[0], f"{where}[{i}]") for i, one in enumerate(value))
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{where or 'it'} must be a mapping, got {shown(value)}"
        start = f"{where}." if where else ""
        of_keys: dict[str, Any] = dict.fromkeys(value, shape[EVERY]) if EVERY in shape else shape
        if missing := next((key for key in of_keys if key not in value), None):
            return f"{start}{missing} is missing"
        return _first(mistake(value[key], inner, f"{start}{key}") for key, inner in of_keys.items())
    words, fits = shape
    return None if fits(value) else f"{where or 'it'} must be {words}, got {shown(value)}"


def _first(mistakes: Iterator[str | None]) -> str | None:
    return next(filter(None, mistakes), None)
