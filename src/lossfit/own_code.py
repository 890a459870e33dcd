"""The user's own code, named by its import path: loss=custom, model=custom, callbacks=custom and metrics=custom."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def locate(path: str) -> Callable[..., Any]:
    """Import what `path` names, such as my_losses.tempered, from an installed package or the current folder.

    Raises ValueError if it cannot be imported or called. The import runs the module: use this only for configs that the
    user composed or trusts (see trust.py).
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"function must be an import path such as my_code.name, got {path!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"function={path} cannot be imported from {os.getcwd()}: {error}") from error
    if not callable(found):
        raise ValueError(f"function={path} is not callable: {type(found).__name__}")
    return found


def make(path: str, options: Mapping[str, Any] | None, **facts: Any) -> Any:
    """Call what `path` names with the options, and with those facts whose names its arguments have."""
    found = locate(path)
    try:
        taken = set(inspect.signature(found).parameters)
    except ValueError:  # a builtin has no signature
        taken = set()
    return found(**{name: value for name, value in facts.items() if name in taken}, **dict(options or {}))
