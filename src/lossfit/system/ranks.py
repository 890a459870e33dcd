"""Which rank of a distributed run this process is, according to the environment variables of torchrun and srun."""

import os
import signal

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
    """Whether this process runs on another node than rank 0; false if RANK is set, which says more."""
    return "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") != "0"


def end_with_parent() -> None:
    """If this process is a rank, let the kernel kill it when its parent ends: rank 0, or torchrun's agent."""
    if "LOCAL_RANK" in os.environ:
        die_with_parent(signal.SIGKILL, int(os.environ.get(PARENT_PID_VAR, os.getppid())))
