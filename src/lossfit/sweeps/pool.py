"""Run folders trained side by side on this machine, each by a process of its own.

What a job has to say goes to console.log in its folder; how it ended stands in its result.json, and that is all that is
known of it here. A process that dies without having written it, by a signal or for lack of memory, is written down as
failed. Nothing here imports torch before the first job starts.
"""

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from lossfit import runs
from lossfit.config import Config
from lossfit.errors import UserError, exit_on_error
from lossfit.system import locks, signals
from lossfit.system.signals import die_with_parent

TICK = 1.0  # seconds between two looks at the jobs
INTERRUPTED = 130  # the exit status


@dataclass
class Job:
    """A run folder to be trained; `text` is what a person knows it by."""

    folder: Path
    text: str
    gpus: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)  # the result.json of an earlier start
    started: float = 0.0
    process: BaseProcess | None = None
    killed: bool = False  # by us, at the second signal that asked to stop

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started


class Watcher(Protocol):
    """What is told of the jobs as they come and go."""

    def started(self, job: Job) -> None:
        """A job has begun."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """A job is over; `result` is its result.json."""

    def tick(self, running: list[Job]) -> None:
        """A second has passed."""


class Gpus:
    """The graphics processors of this machine, each with places for so many jobs."""

    def __init__(self, names: list[str], jobs_each: int) -> None:
        self.places = dict.fromkeys(names, jobs_each)
        self.total = len(names) * jobs_each

    def take(self, count: int) -> list[str] | None:
        """Return the names of the `count` freest, a place in each now taken; None while there are too few."""
        free = sorted((name for name, places in self.places.items() if places), key=lambda name: -self.places[name])
        if len(free) < count:
            return None
        for name in free[:count]:
            self.places[name] -= 1
        return free[:count]

    def give_back(self, names: list[str]) -> None:
        """Free a place in each."""
        for name in names:
            self.places[name] += 1


def train_all(jobs: Iterable[Job], watcher: Watcher, n_jobs: int | None, jobs_per_gpu: int, fail_fast: bool) -> None:
    """Train the jobs, n_jobs at once or fewer; each is taken from `jobs` when there is room for it.

    n_jobs: None for one, or for as many as the GPUs have places. A job that trains on GPUs gets the ones it sees for
    itself and the other jobs of its share, and waits until there are enough. fail_fast: the first failure ends all.
    What is raised here, KeyboardInterrupt when asked to stop, is raised after the jobs have saved where they are.
    """
    import lossfit.training.engine  # noqa: F401  once, for all the processes that are forked from this one

    gc.freeze()  # a collection in a forked process would copy all of this one's memory
    names = visible_gpus()
    gpus = Gpus(names, jobs_per_gpu)
    at_once = n_jobs or max(1, len(names) * jobs_per_gpu)
    waiting = iter(jobs)
    job: Job | None = None  # taken, and not started yet
    running: list[Job] = []
    with _asked_to_stop() as asked:
        try:
            while True:
                if asked:
                    raise KeyboardInterrupt
                job = job or (next(waiting, None) if len(running) < at_once else None)
                if job is not None and _start(job, gpus, at_once):
                    running.append(job)
                    watcher.started(job)
                    job = None
                    continue
                if not running:
                    return
                wait([one.process.sentinel for one in running if one.process], TICK)
                failures = [one for one in list(running) if _over(one, running, gpus, watcher)]
                watcher.tick(running)
                if failures and fail_fast:
                    _stop(running, gpus, watcher, asked)
                    return
        except BaseException:
            _stop(running, gpus, watcher, asked)
            raise
        finally:
            gc.unfreeze()


def _start(job: Job, gpus: Gpus, at_once: int) -> bool:
    """Start a job, unless the GPUs it needs are taken."""
    trainer = runs.read_config(job.folder)["trainer"]
    wanted = gpus_needed(trainer, len(gpus.places))
    taken = gpus.take(wanted) if wanted else []
    if taken is None:
        return False
    environment = {}
    if "OMP_NUM_THREADS" not in os.environ:
        devices = trainer.get("devices")
        ranks = wanted or (devices if isinstance(devices, int) else 1)
        jobs = min(at_once, gpus.total // wanted) if wanted else at_once
        environment["OMP_NUM_THREADS"] = str(max(1, processors() // max(1, jobs) // max(1, ranks)))
    if wanted:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    # a fork has all imports done; other systems than Linux do not stand it
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    sys.stdout.flush()
    sys.stderr.flush()
    job.process = context.Process(target=_train, args=(job.folder, environment, os.getpid()))
    job.gpus, job.before, job.started = taken, runs.read_result(job.folder), time.monotonic()
    assert job.process is not None
    job.process.start()
    return True


def _train(folder: Path, environment: dict[str, str], parent: int) -> None:
    """What a job's process does."""
    die_with_parent(signal.SIGTERM, parent)  # it saves, and then ends
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C goes to the sweep, which asks each job once
    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    with (folder / "console.log").open("a") as stream:
        for descriptor in (1, 2):
            os.dup2(stream.fileno(), descriptor)
    os.environ |= environment
    import torch

    from lossfit.training import engine

    if "OMP_NUM_THREADS" in environment:
        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    with exit_on_error():
        try:
            engine.train(folder)
        except UserError as error:  # it may have been refused before its result was begun
            if not locks.is_held(folder) and runs.status(folder) not in runs.FINISHED:
                runs.write_failed(folder, str(error))
            raise


def _over(job: Job, running: list[Job], gpus: Gpus, watcher: Watcher) -> bool:
    """Put a job that has ended aside; return whether it failed."""
    assert job.process is not None
    if job.process.is_alive():
        return False
    job.process.join()
    code = job.process.exitcode
    running.remove(job)
    gpus.give_back(job.gpus)
    result = runs.read_result(job.folder)
    unended = runs.has_no_outcome(result, job.before)
    if locks.is_held(job.folder):
        result = {"status": "failed", "reason": "another process is working on it"}
    elif unended and code == INTERRUPTED:  # before it had begun
        result = {**result, "status": "interrupted"}
    elif unended:
        _kill(job)  # what it has started
        result = {**result, "status": "failed", "reason": _cause(code, job.killed)}
        with contextlib.suppress(OSError):  # a full disk
            runs.write_failed(job.folder, result["reason"])
    watcher.ended(job, result)
    return result["status"] == "failed"


def _cause(code: int | None, killed: bool) -> str:
    """Word how a process died that left no result. killed: it was killed by us."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if killed:
            return f"killed by {name}, since the sweep was asked a second time to stop"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    return f"ended with status {code} and no result"


def _stop(running: list[Job], gpus: Gpus, watcher: Watcher, asked: list[int]) -> None:
    """Have the jobs end after their step, with a checkpoint; at another signal at once."""
    before = len(asked)
    for job in running:
        if job.process is not None and job.process.is_alive() and job.process.pid is not None:
            os.kill(job.process.pid, signal.SIGTERM)
    while running:
        wait([job.process.sentinel for job in running if job.process], TICK)
        if len(asked) > before:
            for job in running:
                job.killed = True
                _kill(job)
        for job in list(running):
            _over(job, running, gpus, watcher)


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Keep a list of the signals that ask to stop: an exception raised by one, while a fork is made, would be lost."""
    asked: list[int] = []
    with signals.handled(lambda number, frame: asked.append(number)):
        yield asked


def _kill(job: Job) -> None:
    """End a job's process and all that it started."""
    if job.process is None or job.process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.process.pid, signal.SIGKILL) if hasattr(os, "killpg") else job.process.kill()


def gpus_needed(trainer: Config, available: int) -> int:
    """Return how many GPUs a run takes where so many are available."""
    devices, accelerator = trainer.get("devices", "auto"), trainer.get("accelerator", "auto")
    if not available or accelerator not in ("auto", "gpu", "cuda"):
        return 0
    if isinstance(devices, list):
        raise UserError(
            f"trainer.devices={devices}: in a sweep each job is given its GPUs: say how many, and choose among them "
            f"with CUDA_VISIBLE_DEVICES"
        )
    count = available if devices in ("auto", -1, "-1") else int(devices)
    if count > available:
        raise UserError(f"trainer.devices={devices}: this machine has {available} GPUs")
    return count


def rehearsed(configs: Sequence[Config]) -> list[str]:
    """Return what runs of these configs would be refused for; the process itself does not run torch."""
    import lossfit.training.engine

    def rehearse() -> list[str]:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            logging.disable()
            return lossfit.training.engine.rehearse(configs)

    return _in_a_fork(rehearse, failed=["the process that tried the jobs' configs ended without a result"])


def _in_a_fork(function: Callable[[], Any], failed: Any) -> Any:
    """Return what a function returns in a process of its own, or `failed` if that dies; on Linux only.

    What it initialises, CUDA or threads, would not survive the forks that are made later.
    """
    if sys.platform != "linux":
        return function()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function()))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return failed
    finally:
        process.join()


def visible_gpus() -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES knows the GPUs."""
    from torch.cuda import device_count

    count = _in_a_fork(device_count, failed=0)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
