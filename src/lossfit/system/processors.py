"""The processors of this machine, what they are called, and whether more threads want them than there are."""

import os
from pathlib import Path

BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512", "bf16": "Arm"}  # flag of /proc/cpuinfo -> what has it
REMEDY = "start it with OMP_NUM_THREADS="


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """Return the processor's name, how many cores this process may use, whether they have bfloat16, and the GPU."""
    words = {}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        words = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(f"{words.get('flags', '')} {words.get('Features', '')}".split())
    native = next((where for flag, where in BF16.items() if flag in flags), None)
    parts = [words.get("model name", "processor"), f"{processors()} cores", f"native bf16: {native or 'no'}"]
    return ", ".join([*parts, gpu] if (gpu := _gpu_name()) else parts)


def _gpu_name() -> str | None:
    """Return the name of the first GPU, which a run uses by default."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def threads_of_each(jobs: int) -> int:
    """Return how many threads each of several jobs at once has, if none says it by itself."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else max(1, processors() // jobs)


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
