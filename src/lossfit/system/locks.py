"""A lock for each folder: one process at a time works on a run or a sweep. A process that dies frees its lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lossfit.errors import UserError

NAME = ".lock"


@contextmanager
def held(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a folder; raise UserError if another process still holds it after `patience` seconds.

    Does nothing on a file system without locks.
    """
    lock = FileLock(folder / NAME, timeout=patience)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder}: another process is working on it") from error
    except NotImplementedError:
        pass
    except OSError as error:
        raise UserError(f"{folder / NAME} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    if not (folder / NAME).exists():
        return False
    lock = FileLock(folder / NAME, timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True
    except (NotImplementedError, OSError):  # another user's file, or no locks
        return False
