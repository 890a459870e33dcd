"""Which rank of a distributed run this process is, according to the environment variables of torchrun and srun."""

import os
import signal
import threading

from lossfit.system.signals import die_with_parent

PARENT_PID_VAR = "LOSSFIT_STARTER"  # the process id of the rank 0 that started this one


def started_rank() -> tuple[int, int] | None:
    """Return (rank, number of ranks) if torchrun or srun started this process as one of several, else None."""
    given = os.environ
    if "LOCAL_RANK" in given:
        rank, size = given.get("RANK", given["LOCAL_RANK"]), given.get("WORLD_SIZE", "1")
    elif given.get("SLURM_JOB_NAME") not in ("bash", "interactive"):  # not a shell in an allocation; Lightning's test
        rank, size = given.get("SLURM_PROCID", "0"), given.get("SLURM_NTASKS", "1")
    else:
        return None
    return (int(rank), int(size)) if int(size) > 1 else None


def is_on_another_node() -> bool:
    """Whether this process runs on another node than rank 0; false if RANK, which counts over all nodes, is set."""
    return "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") != "0"


def end_with_parent() -> None:
    """If this process is a rank, let the kernel kill it when its parent ends: rank 0, or torchrun's agent."""
    if "LOCAL_RANK" in os.environ:
        die_with_parent(signal.SIGKILL, int(os.environ.get(PARENT_PID_VAR, os.getppid())))


def ignore_ctrl_c() -> None:
    """If rank 0 started this process, ignore Ctrl-C until `handle_ctrl_c`.

    Ctrl-C in a terminal reaches all ranks. If this one ended before it has joined rank 0, rank 0 would wait for it.
    """
    if PARENT_PID_VAR in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def handle_ctrl_c() -> None:
    """Handle Ctrl-C as Python does, if `ignore_ctrl_c` ignores it."""
    if PARENT_PID_VAR in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
