"""Processes that others started: which rank the environment gives them, and an end with their starter. No torch."""

import ctypes
import os
import signal
import sys

STARTER = "LOSSFIT_STARTER"  # the process id of the rank 0 that started this one
PR_SET_PDEATHSIG = 1
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))  # ask to end


def started_rank() -> tuple[int, int] | None:
    """Return (rank, number of ranks) where torchrun or srun started this process as one of several, else None."""
    given = os.environ
    if "LOCAL_RANK" in given:
        rank, size = given.get("RANK", given["LOCAL_RANK"]), given.get("WORLD_SIZE", "1")
    elif given.get("SLURM_JOB_NAME") not in ("bash", "interactive"):  # a shell that srun gave, as Lightning has it
        rank, size = given.get("SLURM_PROCID", "0"), given.get("SLURM_NTASKS", "1")
    else:
        return None
    return (int(rank), int(size)) if int(size) > 1 else None


def end_rank_with_starter() -> None:
    """Have a rank killed at once when the process that started it, rank 0 or torchrun's agent, is no more."""
    if "LOCAL_RANK" in os.environ:
        die_with_parent(signal.SIGKILL, int(os.environ.get(STARTER, os.getppid())))


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send this process a signal when `parent`, which started it, is gone; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # gone before
            os.kill(os.getpid(), number)
