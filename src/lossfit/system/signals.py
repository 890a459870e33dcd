"""The signals that ask a process to stop, and who handles them."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

# Ctrl-C, a kill, and what SLURM sends before a job's time is over
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
PR_SET_PDEATHSIG = 1


def handle(handler: Handler) -> dict[int, Any]:
    """Handle the stop signals with `handler`; return the handlers from before, none where this is not the main thread.

    Python lets only the main thread set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in STOP_SIGNALS}


def restore(handlers: Mapping[int, Any]) -> None:
    """Set the handlers that `handle` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Handle the stop signals with `handler` while the block runs."""
    before = handle(handler)
    try:
        yield
    finally:
        restore(before)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt: a handler that treats every stop signal as Ctrl-C."""
    raise KeyboardInterrupt


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when `parent`, which started it, ends. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before prctl was called
            os.kill(os.getpid(), number)


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver stop signals after the block; a process forked in it gets none until it calls `obey_only`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def obey_only(parent: int) -> None:
    """Make this process, a worker of `parent`, ignore stop signals from all others, and end when `parent` ends.

    Schedulers and Ctrl-C in a terminal send a stop signal to all processes of a job. Only the parent knows what to do;
    a worker that ended by itself would make it fail. The parent's own SIGTERM ends the worker.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_sigterm, args=(parent,), daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the sender cannot be known
    if hasattr(signal, "SIGKILL"):
        die_with_parent(signal.SIGKILL, parent)


def _wait_for_sigterm(sender: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
        pass
    os._exit(0)
