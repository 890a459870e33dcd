"""The type of an argument, from its annotation: whether a config's value fits it, and how a person reads it."""

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a config's value can be meant for an argument of this type. True for a type that is not known here.

    A node with a `_target_` fits every type: it becomes an object. Ranges are not looked at.
    """
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin is typing.Literal:
        return value in inner
    kind = origin or annotation
    if kind is Any:
        return True
    if kind is types.NoneType or kind is None:
        return value is None or value == {}  # an option file with nothing in it
    if not isinstance(kind, type) or kind is object:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return True
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if issubclass(kind, Mapping):
        return isinstance(value, dict)
    if kind is tuple or issubclass(list, kind):
        return isinstance(value, list) and _items_fit(value, kind, inner)
    if hasattr(kind, "__fspath__"):
        return isinstance(value, str)
    return isinstance(value, kind)


def _items_fit(values: list[Any], kind: type, inner: Sequence[Any]) -> bool:
    items = [item for item in inner if item is not ...]
    if kind is tuple and len(items) > 1:  # tuple[float, float]
        return len(values) == len(items) and all(map(fits, values, items))
    return not items or all(fits(value, items[0]) for value in values)


def type_in_words(annotation: Any) -> str:
    """Return a type for a message, such as `a whole number or null`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        plain = [option for option in inner if not isinstance(option, type) or option.__module__ == "builtins"]
        options = dict.fromkeys(type_in_words(option) for option in plain or inner)
        return " or ".join(sorted(options, key=lambda words: words == "null"))
    if origin is typing.Annotated:
        return type_in_words(inner[0])
    if origin is typing.Literal:
        return repr(inner[0]) if len(inner) == 1 else "one of " + ", ".join(dict.fromkeys(map(str, inner)))
    kind = origin or annotation
    if kind in NAMES:
        return NAMES[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        items = [f"{words.removeprefix('a ')}s" for words in type_in_words(inner[0]).split(" or ")] if inner else []
        return f"a list of {' or '.join(items)}" if items else "a list"
    return getattr(kind, "__name__", str(kind))
