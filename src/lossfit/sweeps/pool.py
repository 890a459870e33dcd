"""A pool of processes that train run folders side by side on this machine.

A job's stdout and stderr go to console.log in its folder. Its outcome is read from result.json and nowhere else: if its
process dies without writing one, by a signal or for lack of memory, the pool writes it down as failed. Imports no torch
before the first job starts.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from lossfit import runs
from lossfit.config import Config
from lossfit.errors import UserError, exit_on_error
from lossfit.runs import names
from lossfit.sweeps.resources import GpuSlots, gpus_needed, visible_gpus
from lossfit.system import imports, locks, signals
from lossfit.system.processors import processors, too_many_threads
from lossfit.system.signals import die_with_parent

TICK = 1.0  # seconds between two looks at the jobs
INTERRUPTED = 130  # the exit status


@dataclass
class Job:
    """A run folder to be trained. text: the job's name in the console."""

    folder: Path
    text: str
    gpus: list[str] = field(default_factory=list)
    previous_result: dict[str, Any] = field(default_factory=dict)  # result.json before this start
    started: float = 0.0
    process: BaseProcess | None = None
    killed: bool = False  # by the pool, at the second stop signal

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started

    def start(self, gpus: list[str], environment: dict[str, str]) -> None:
        """Start the job's process."""
        # a fork has everything imported already; only Linux supports it
        context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        sys.stdout.flush()
        sys.stderr.flush()
        process: BaseProcess = context.Process(target=_train, args=(self.folder, environment, os.getpid()))
        self.gpus, self.previous_result, self.started = gpus, runs.read_result(self.folder), time.monotonic()
        self.process = process
        process.start()

    def kill(self) -> None:
        """End the job's process and everything that it started."""
        if self.process is None or self.process.pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL) if hasattr(os, "killpg") else self.process.kill()


class Watcher(Protocol):
    """Follows the jobs of a pool."""

    def started(self, job: Job) -> None:
        """Called when a job has started."""

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """Called when a job has ended; `result` is its result.json."""

    def tick(self, running: list[Job]) -> None:
        """Called about once a second."""


class Pool:
    """Trains jobs, each in a process of its own, several at once.

    n_jobs: jobs at once; None for one per slot on the GPUs, or one without GPUs. jobs_per_gpu: slots on each GPU.
    fail_fast: the first failure ends all jobs. A job that trains on GPUs sees only those on which it has a slot, and
    waits until enough slots are free.
    """

    def __init__(self, watcher: Watcher, n_jobs: int | None, jobs_per_gpu: int, fail_fast: bool) -> None:
        self.watcher, self.fail_fast = watcher, fail_fast
        self.gpus = GpuSlots(visible_gpus(), jobs_per_gpu)
        self.at_once = n_jobs or max(1, self.gpus.total)
        self.running: list[Job] = []
        self.stop_signals: list[int] = []  # received so far; an exception raised by one during a fork would be lost

    def train(self, jobs: Iterable[Job]) -> None:
        """Train the jobs; each is taken from `jobs` when there is room for it.

        Raises KeyboardInterrupt at a stop signal, and whatever else is raised here, after the running jobs have saved
        and ended.
        """
        with imports.quick():
            import lossfit.training.engine  # noqa: F401  once, for all the processes that are forked from this one
        if warning := self._too_many_threads():
            print(warning, flush=True)
        with signals.handled(lambda number, frame: self.stop_signals.append(number)):
            try:
                self._train(iter(jobs))
            except BaseException:
                self._stop()
                raise

    def _train(self, jobs: Iterator[Job]) -> None:
        job: Job | None = None  # taken from the iterator, and not started yet
        while True:
            if self.stop_signals:
                raise KeyboardInterrupt
            job = job or (next(jobs, None) if len(self.running) < self.at_once else None)
            if job is not None and self._start(job):
                job = None
                continue
            if not self.running:
                return
            self._wait()
            failed = self._reap()
            self.watcher.tick(self.running)
            if failed and self.fail_fast:
                self._stop()
                return

    def _start(self, job: Job) -> bool:
        """Start a job; return False if the GPUs that it needs are in use."""
        trainer = runs.read_config(job.folder)["trainer"]
        count = gpus_needed(trainer, len(self.gpus.free))
        taken = self.gpus.take(count)
        if taken is None:
            return False
        environment = {}
        if "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(self._threads(trainer, count))
        if taken:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
        job.start(taken, environment)
        self.running.append(job)
        self.watcher.started(job)
        return True

    def _threads(self, trainer: Config, gpus: int) -> int:
        """Return each rank's share of the processors, for a job that uses so many GPUs."""
        devices = trainer.get("devices")
        ranks = gpus or (devices if isinstance(devices, int) else 1)
        jobs = min(self.at_once, self.gpus.total // gpus) if gpus else self.at_once
        return max(1, processors() // max(1, jobs) // max(1, ranks))

    def _too_many_threads(self) -> str | None:
        """Return a warning if the user's OMP_NUM_THREADS is too large for so many jobs on processors at once."""
        given = os.environ.get("OMP_NUM_THREADS", "")
        return too_many_threads(self.at_once, int(given), "job") if given.isdecimal() and not self.gpus.total else None

    def _wait(self) -> None:
        """Wait until a process ends, at most for a tick."""
        wait([job.process.sentinel for job in self.running if job.process], TICK)

    def _reap(self) -> bool:
        """Remove the jobs whose process has ended; return whether one failed."""
        failed = False
        for job in list(self.running):
            assert job.process is not None
            if job.process.is_alive():
                continue
            job.process.join()
            self.running.remove(job)
            self.gpus.release(job.gpus)
            result = _outcome(job, job.process.exitcode)
            self.watcher.ended(job, result)
            failed = failed or result["status"] == "failed"
        return failed

    def _stop(self) -> None:
        """End the jobs after their step, with a checkpoint; at another stop signal, kill them."""
        before = len(self.stop_signals)
        for job in self.running:
            if job.process is not None and job.process.is_alive():
                job.process.terminate()
        while self.running:
            self._wait()
            if len(self.stop_signals) > before:
                for job in self.running:
                    job.killed = True
                    job.kill()
            self._reap()


def _outcome(job: Job, code: int | None) -> dict[str, Any]:
    """Return the result of a job whose process has ended; a process that wrote none has failed."""
    result = runs.read_result(job.folder)
    if locks.is_held(job.folder):
        return {"status": "failed", "reason": "another process is working on it"}
    if not runs.has_no_outcome(result, job.previous_result):
        return result
    if code == INTERRUPTED:  # before training began
        return {**result, "status": "interrupted"}
    job.kill()  # the processes that it started
    reason = runs.obstacle(job.folder) or _cause_of_death(code, job.killed)
    with contextlib.suppress(OSError):  # a full disk
        runs.write_failed(job.folder, reason)
    return {**result, "status": "failed", "reason": reason}


def _cause_of_death(code: int | None, killed: bool) -> str:
    """Say how a process died that left no result. killed: the pool killed it."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if killed:
            return f"killed by {name}, since the sweep was asked a second time to stop"
        memory = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"killed by {name}{memory}"
    return f"ended with status {code} and no result"


def _train(folder: Path, environment: dict[str, str], parent: int) -> None:
    """Train a run folder: the body of a job's process."""
    gc.freeze()  # a collection would copy all of the parent's memory
    die_with_parent(signal.SIGTERM, parent)  # at which it saves and ends
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # Ctrl-C in the terminal reaches the sweep only, which sends each job one signal
    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    console = folder / names.CONSOLE
    if console.is_file() or not os.path.lexists(console):  # a pipe would be waited for; the run refuses it
        with console.open("a") as stream:
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
        except UserError as error:  # perhaps refused before its result.json was begun
            if not locks.is_held(folder) and runs.status(folder) not in runs.FINISHED:
                runs.write_failed(folder, str(error))
            raise
