"""Values from files that are not trusted: which are plain, and how one is shown in a message; float32's digits."""

import math
import reprlib
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
