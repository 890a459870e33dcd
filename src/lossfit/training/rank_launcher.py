"""Ranks of a distributed run are started from its folder: `python -m lossfit FOLDER`, no command line repeated."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lossfit.errors import TRACEBACK, UserError, traceback_wanted
from lossfit.runs import trust
from lossfit.system.ranks import PARENT_PID_VAR, started_rank
from lossfit.training.lightning_internals import SubprocessScriptLauncher, set_launcher

log = logging.getLogger(__name__)

GRACE = 30.0  # seconds that ranks have to end by themselves once another one has


class RunFolderLauncher(SubprocessScriptLauncher):
    """Lightning's launcher with another command: each further rank of this machine trains the same run folder.

    Under torchrun or SLURM, which start the ranks themselves, it starts none.
    """

    def __init__(self, folder: Path, on_failure: Callable[[str], None], *options: Any) -> None:
        super().__init__(*options)
        self.folder, self.on_failure = folder, on_failure
        self.over = threading.Event()

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        path = os.pathsep.join(filter(None, sys.path))  # a rank imports what this process can
        for rank in range(1, self.num_processes):
            command = [sys.executable, "-m", "lossfit", str(self.folder)]
            rank_environment = {**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": path}
            rank_environment |= {TRACEBACK: str(int(traceback_wanted)), PARENT_PID_VAR: str(os.getpid())}
            rank_environment |= {trust.VARIABLE: "1"}  # this process has looked at the config
            self.procs.append(subprocess.Popen(command, env=rank_environment))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """End this process if another rank has failed and this one still waits for it."""
        while not self.over.wait(1.0):
            failed = [process for process in self.procs if process.poll()]
            if failed:
                reason = f"rank {self.procs.index(failed[0]) + 1} ended with status {failed[0].returncode}"
                log.error(reason)
                if not self.over.wait(GRACE):
                    self.on_failure(reason)
                    for process in self.procs:
                        process.kill()
                    os._exit(1)  # the main thread waits in a collective that no signal ends
                return

    def launch(self, function: Any, *args: Any, trainer: Trainer | None = None, **options: Any) -> Any:
        """Start the other ranks, unless that has been done, and call the function."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
        if self.num_processes > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.num_processes))
        return function(*args, **options)


def check_ranks(folder: Path, trainer: Trainer) -> None:
    """Raise UserError where the ranks would not be those of the config.

    Others were started from outside, or no one starts them on the other nodes.
    """
    launcher = trainer.strategy.launcher
    _, started = started_rank() or (0, trainer.world_size)
    if started != trainer.world_size:
        raise UserError(
            f"trainer.devices x trainer.num_nodes is {trainer.world_size}, and {started} ranks were started: set "
            f"trainer.strategy=ddp, trainer.devices to the ranks on a node, trainer.num_nodes to the nodes"
        )
    if isinstance(launcher, SubprocessScriptLauncher):
        by_hand = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys()
        if trainer.num_nodes > 1 and not launcher.cluster_environment.creates_processes_externally and not by_hand:
            raise UserError(
                f"trainer.num_nodes={trainer.num_nodes}: the other nodes' ranks are yet to be started; on each node: "
                f"torchrun --nnodes {trainer.num_nodes} --node-rank N --nproc-per-node {launcher.num_processes} "
                f"--master-addr HOST --master-port PORT -m lossfit {folder}"
            )


def use_run_folder_launcher(folder: Path, trainer: Trainer, on_failure: Callable[[str], None]) -> None:
    """Have the trainer start its other ranks from the run folder.

    on_failure is called with the reason, from another thread, when a rank has failed, this one has not come back from
    waiting for it, and the process is about to be ended.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, SubprocessScriptLauncher):
        own = RunFolderLauncher(
            folder, on_failure, launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )
        set_launcher(trainer, own)


@contextmanager
def torn_down(trainer: Trainer) -> Iterator[None]:
    """Leave no rank, process group, thread setting or environment variable behind when the trainer is done."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    ranks: list[subprocess.Popen[bytes]] = []
    launcher = trainer.strategy.launcher
    if isinstance(launcher, RunFolderLauncher):
        ranks = launcher.procs
    try:
        yield
    except BaseException:
        for process in ranks:
            process.kill()
        raise
    finally:
        if isinstance(launcher, RunFolderLauncher):
            launcher.over.set()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        deadline = time.monotonic() + GRACE
        for process in ranks:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
        torch.set_num_threads(threads)
