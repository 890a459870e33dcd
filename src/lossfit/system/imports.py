"""Imports of large packages without garbage collection."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage while the block imports.

    Nearly all objects that an import makes stay to the end of the process. Looking for garbage among them takes a fifth
    of the time of importing torch and Lightning.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
