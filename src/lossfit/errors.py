"""What the user reads when something goes wrong: a few clear lines and an exit status, without a traceback."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

TRACEBACK = "HYDRA_FULL_ERROR"  # Hydra's own switch, so that one variable shows every traceback
traceback_wanted = os.environ.get(TRACEBACK, "") not in ("", "0")  # read at the import, before cli sets it


class UserError(Exception):
    """A mistake that the user can correct; the message says how."""


class DataChanged(UserError):
    """Data that are not those that a run began with. change: how they differ."""

    def __init__(self, change: str, remedy: str) -> None:
        super().__init__(f"{change}. {remedy}")
        self.change = change


class ConfigError(UserError):
    """One or more mistakes in a config, a line each."""


class RunError(Exception):
    """A run that failed in training; the cause is chained, and its traceback is in the run's train.log."""


class Diverged(RunError):
    """A run that ended because its loss or a weight became NaN or infinite.

    step: the step in which that was found, and which it may have happened before. in_this_batch: whether it is the loss
    of the batch that is being trained.
    """

    def __init__(self, message: str, step: int = 0, in_this_batch: bool = False) -> None:
        super().__init__(message)
        self.step, self.in_this_batch = step, in_this_batch


class Interrupted(KeyboardInterrupt):
    """A run that was stopped by Ctrl-C or a signal; its checkpoint and result.json are written."""


def one_line(error: Exception) -> str:
    """Return the message of a library's error in one line, shortened."""
    return " ".join(str(error).split())[:300]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` if a known word is similar, else the known words."""
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(known)})" if known else ""


@contextmanager
def exit_on_error(explain: Callable[[Exception], str | None] = lambda error: None) -> Iterator[None]:
    """Turn exceptions of the block into lines on stderr and an exit status.

    2: a mistake that was refused; 1: a run that failed; 130: a run that was interrupted. `explain` returns the message
    for an exception of a library that means a mistake, and None for any other.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        print(f"Interrupted. {error}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if traceback_wanted:
            raise
        text = str(error) if isinstance(error, UserError) else explain(error)
        unforeseen = f"{type(error).__name__}: {error}" if not isinstance(error, RunError) else str(error)
        print(f"Error: {text or unforeseen}", file=sys.stderr)
        print(f"({TRACEBACK}=1 shows the traceback)", file=sys.stderr)
        sys.exit(2 if text else 1)


def first_ten(items: Sequence[object]) -> str:
    """Return the first ten of several items for a message, in one line, and how many more there are."""
    more = f" and {len(items) - 10:,} more" if len(items) > 10 else ""
    return ", ".join(map(printable, items[:10])) + more


def counted(items: Sequence[object], one: str, several: str | None = None) -> str:
    """Return how many items there are, as `1 image` or `2,000 images`. several: the plural, if it is not one + s."""
    return f"{len(items):,} {one if len(items) == 1 else several or f'{one}s'}"


def printable(item: object) -> str:
    """Return a text, such as the name of a file, with every character escaped that would not be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(item))
