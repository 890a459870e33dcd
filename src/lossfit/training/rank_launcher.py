"""Starts the other ranks of a distributed run. Each one runs `python -m lossfit FOLDER`."""

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
from lossfit.system.ranks import PARENT_PID_VAR, handle_ctrl_c, started_rank
from lossfit.training.lightning_internals import SubprocessScriptLauncher, set_launcher

log = logging.getLogger(__name__)

GRACE = 30.0  # seconds that the other ranks have to end by themselves, after one rank has failed or the run is over


class RunFolderLauncher(SubprocessScriptLauncher):
    """Starts the other ranks of this machine, each as a process that trains the same run folder.

    Lightning's own launcher would repeat this process's command line, which makes a new run folder. If torchrun or
    SLURM has started the ranks, this one starts none. `procs` has the processes of ranks 1, 2, ... in this order;
    Lightning kills them if this rank gets a KeyboardInterrupt.
    """

    def __init__(self, folder: Path, on_failure: Callable[[str], None], *options: Any) -> None:
        super().__init__(*options)
        self.folder, self.on_failure = folder, on_failure
        self.done = threading.Event()  # this rank no longer waits for the others

    def launch(self, function: Any, *args: Any, trainer: Trainer | None = None, **options: Any) -> Any:
        """Start the other ranks, at the first call only, and call the function."""
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:  # also true once LOCAL_RANK is set, by _start_ranks
            self._start_ranks()
        if self.num_processes > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.num_processes))
        handle_ctrl_c()  # this rank is about to join the others
        return function(*args, **options)

    def _start_ranks(self) -> None:
        environment = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        command = [sys.executable, "-m", "lossfit", str(self.folder)]
        shared = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # a rank can import what this process can
            TRACEBACK: str(int(traceback_wanted)),
            PARENT_PID_VAR: str(os.getpid()),
            trust.VARIABLE: "1",  # this process has checked the config
        }
        for rank in range(1, self.num_processes):
            self.procs.append(subprocess.Popen(command, env={**shared, "LOCAL_RANK": str(rank)}))
        threading.Thread(target=self._watch_ranks, daemon=True).start()

    def _watch_ranks(self) -> None:
        """If another rank fails and this rank still waits for it GRACE seconds later, end this process.

        Runs in a thread: the main thread may wait in a collective, which neither a signal nor an exception ends.
        """
        while not self.done.wait(1.0):
            failed = [(rank, process) for rank, process in enumerate(self.procs, 1) if process.poll()]
            if failed:
                rank, process = failed[0]
                reason = f"rank {rank} ended with status {process.returncode}"
                log.error(reason)
                if not self.done.wait(GRACE):
                    self.on_failure(reason)
                    self.kill_ranks()
                    os._exit(1)
                return

    def kill_ranks(self) -> None:
        """Kill the other ranks that are still running."""
        for process in self.procs:
            process.kill()

    def wait_for_ranks(self) -> None:
        """Wait until the other ranks have ended; kill those that need more than GRACE seconds."""
        deadline = time.monotonic() + GRACE
        for process in self.procs:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check_ranks(folder: Path, trainer: Trainer) -> None:
    """Raise UserError if the ranks would not be the ones that the config asks for.

    Either torchrun or srun has started another number of ranks, or nothing starts the ranks of the other nodes.
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
    """Make the trainer start its other ranks with RunFolderLauncher.

    on_failure: called with the reason, from another thread, right before this process is ended because another rank
    has failed and this one still waits for it.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, SubprocessScriptLauncher):
        own = RunFolderLauncher(
            folder, on_failure, launcher.cluster_environment, launcher.num_processes, launcher.num_nodes
        )
        set_launcher(trainer, own)


@contextmanager
def torn_down(trainer: Trainer) -> Iterator[None]:
    """After the block, leave no rank, process group, thread setting or environment variable behind.

    If the block raises, the other ranks are killed; otherwise they have GRACE seconds to end.
    """
    environment, threads = dict(os.environ), torch.get_num_threads()
    launcher = trainer.strategy.launcher
    ours = launcher if isinstance(launcher, RunFolderLauncher) else None
    try:
        yield
    except BaseException:
        if ours:
            ours.kill_ranks()
        raise
    finally:
        if ours:
            ours.done.set()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if ours:
            ours.wait_for_ranks()
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
        torch.set_num_threads(threads)
