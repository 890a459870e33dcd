"""Imports of torch and Lightning in less time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick() -> Iterator[None]:
    """Import torch and what the block imports without garbage collection, and keep it out of later collections.

    Nearly all objects that an import makes stay to the end of the process, and looking for garbage among them takes a
    fifth of the time. The objects of torch and matplotlib are frozen, so that the process ends sooner too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        _import_and_freeze()
        yield
    finally:
        if enabled:
            gc.enable()


def _import_and_freeze() -> None:
    """Import what a run needs in any case, once, and freeze it, before anything imports triton.

    triton's nanobind complains on stderr of each of its objects that is not collected at the end.
    """
    if "torch" in sys.modules:
        return
    import matplotlib.figure  # noqa: F401
    import sympy  # type: ignore[import-untyped]  # noqa: F401  of torch
    import torch.utils.tensorboard  # noqa: F401

    if "triton" not in sys.modules:
        gc.freeze()
