"""Processes that start others."""

import ctypes
import os
import sys


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when `parent`, which started it, is gone; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # gone before
            os.kill(os.getpid(), number)
