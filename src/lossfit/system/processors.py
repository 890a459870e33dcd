"""The processors of this machine, and whether more threads want them than there are."""

import os
from pathlib import Path

REMEDY = "start it with OMP_NUM_THREADS="


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def too_many_threads(processes: int, threads: int, name: str) -> str | None:
    """Return a warning if processes with so many threads each want more processors than there are; name: of one."""
    cores = processors()
    if processes * threads <= cores or threads == 1:
        return None
    each = f"{processes} {name}s of {threads} threads" if processes > 1 else f"{threads} threads"
    return (
        f"Warning: {each} are more than {_cores(cores)}, and threads that wait for each other can take several times "
        f"as long: {REMEDY}{max(1, cores // processes)}"
    )


def busy_processors(threads: int, root: Path = Path("/")) -> str | None:
    """Return a warning if other processes keep all processors busy, and this one is about to use several threads.

    The load average alone would also count a process that has just ended, so as many must want to run now. Linux only:
    it is read from /proc, which is under `root`.
    """
    if threads == 1:
        return None
    try:
        average, _, _, running, _ = (root / "proc/loadavg").read_text().split()
    except (OSError, ValueError):
        return None
    cores = os.cpu_count() or 1  # the load is that of the whole machine
    if float(average) < cores or int(running.partition("/")[0]) - 1 < cores:  # one is this process
        return None
    return (
        f"Warning: other processes keep {_cores(cores)} busy (load {average}), and threads that wait for each other "
        f"can take several times as long: {REMEDY}1"
    )


def _cores(count: int) -> str:
    return f"the {count} cores of this machine" if count > 1 else "the one core of this machine"
