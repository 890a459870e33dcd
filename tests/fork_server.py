"""Runs Python programs, each in a process forked from this one, which has torch and lossfit imported: see forks.py.

    python -m tests.fork_server SOCKET

says "ready" when it listens at SOCKET, a Unix socket, and ends when its stdin ends. A request is a message, JSON, with
the descriptors for stdout and stderr:

    {"arguments": [...], "cwd": FOLDER, "env": {...}, "moments": {...} or null, "ranks": 0}

With "ranks": N, the N ranks that the program or a job of it starts are forks too.
The answers are the process id and, at its end, the exit status, negative for a signal.

A test can have the program killed or held at a moment. Moments are counted from 1 for each kind. "write": right before
and right after a file below the run folder is opened for writing, and before one is renamed or removed or a folder is
made; "step": before and after a step of the optimizer; "half": when half a checkpoint is written.

    {"folder": RUN, "out": FILE, "die": {KIND: NUMBER}, "hold": {KIND: NUMBER}}

die: SIGKILL ends the process there. hold: there it opens the FIFO FILE.here, and continues when the FIFO FILE.go is
opened. A process that was not killed writes into FILE.moments how many moments of each kind it had.
"""

import atexit
import builtins
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hydra.core.plugins import Plugins
from lightning.fabric.utilities.rank_zero import _get_rank, rank_zero_only
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from lossfit import errors

IMPORTS = (
    *("lossfit.cli", "lossfit.training.engine", "lossfit.loggers", "lossfit.sweeps", "lossfit.inference"),
    *("torch.utils.tensorboard", "matplotlib.figure", "optuna", "submitit"),
)
MAKING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Moments:
    """Counts the moments of a run, and dies or waits at one of them."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.folder, self.out = request["folder"], request["out"]
        self.die, self.hold = request.get("die", {}), request.get("hold", {})
        self.counts: Counter[str] = Counter()
        self.on = True
        sys.addaudithook(self.hook)
        register_optimizer_step_pre_hook(lambda *_: self.count("step"))
        register_optimizer_step_post_hook(lambda *_: self.count("step"))
        builtins.open = io.open = self.counted_open(io.open)
        os.open = self.counted_open(os.open)
        torch.save = self.halved(torch.save)

    def count(self, kind: str) -> None:
        """Count a moment, and die or wait if it is the one that was asked for."""
        if not self.on:
            return
        self.counts[kind] += 1
        if self.die.get(kind) == self.counts[kind]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.hold.get(kind) == self.counts[kind]:
            self.on = False
            for name in ("here", "go"):
                Path(f"{self.out}.{name}").open("w" if name == "here" else "r").close()  # waits for the other side
            self.on = True

    def hook(self, event: str, details: tuple[Any, ...]) -> None:
        """Python calls this before it opens a file, renames one, and so on."""
        writes = event in MAKING or (event == "open" and (details[2] or 0) & WRITES)
        if self.on and writes and self.in_folder(details[0]):
            self.count("write")

    def in_folder(self, path: Any) -> bool:
        """Whether a path is the run folder or in it."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder)

    def counted_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that opens files and counts a moment after it has opened one."""

        def opening(path: Any, mode: Any = "r", *args: Any, **options: Any) -> Any:
            opened = function(path, mode, *args, **options)
            writes = mode & WRITES if isinstance(mode, int) else set(mode) & set("wax+")
            if self.on and writes and self.in_folder(path):
                self.count("write")
            return opened

        return opening

    def halved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return torch.save that writes the first half of the file only and dies, if that was asked for."""

        def saving(content: Any, stream: Any, *args: Any, **options: Any) -> None:
            if self.die.get("half") != self.counts["half"] + 1:
                self.counts["half"] += 1
                function(content, stream, *args, **options)
                return
            whole = io.BytesIO()
            function(content, whole, *args, **options)
            stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        return saving


class Rank:
    """A process that is forked in advance and waits until it is started as a rank, like a subprocess.Popen."""

    returncode: int | None = None

    def __init__(self) -> None:
        self.connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if not self.pid:
            self.connection.close()
            message = other.recv(1 << 20)
            if message:
                leave(lambda: run(json.loads(message), [os.dup(1), os.dup(2)]))
            os._exit(0)  # it was not needed
        other.close()

    def start(self, command: list[str], env: dict[str, str]) -> "Rank":
        """Ask it to be a rank."""
        self.connection.send(json.dumps({"arguments": command[1:], "cwd": os.getcwd(), "env": env}).encode())
        return self

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        if self.returncode is None:
            end = os.pidfd_open(self.pid)
            ended, _, _ = select.select([end], [], [], timeout)
            os.close(end)
            if not ended:
                raise subprocess.TimeoutExpired("rank", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start_ranks_as_forks(count: int) -> None:
    """Have this process, and each job that it forks, start its ranks from processes forked beforehand."""
    ranks: list[Rank] = []
    making = False

    def make() -> None:
        nonlocal making
        if not making:
            making = True  # and remains so in a rank, which starts no others
            ranks[:] = [Rank() for _ in range(count)]
            making = False

    def popen(command: list[str], env: dict[str, str]) -> Rank:
        return ranks.pop().start(command, env)

    make()
    os.register_at_fork(after_in_child=make)
    module: Any = importlib.import_module("lossfit.training.rank_launcher")
    module.subprocess = SimpleNamespace(Popen=popen, TimeoutExpired=subprocess.TimeoutExpired)


def leave(program: Callable[[], int]) -> None:
    """Run a program in this process and end with its exit status."""
    status = 1
    try:
        status = program()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(request: dict[str, Any], streams: list[int]) -> int:
    """Run the program in this process; return its exit status."""
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *streams]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    utf8: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin, sys.stdout = open(0, **utf8), open(1, "w", **utf8)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", **utf8)  # noqa: SIM115
    os.chdir(request["cwd"])
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["env"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    program, *arguments = request["arguments"]
    first = os.getcwd() if program in ("-m", "-c") else str(Path(program).absolute().parent)
    sys.path[:] = [first, *filter(None, paths), *(path for path in sys.path[1:] if path not in own)]
    errors.traceback_wanted = os.environ.get(errors.TRACEBACK, "") not in ("", "0")  # was read at the import
    rank_zero_only.rank = _get_rank() or 0  # as well, by Lightning
    if request.get("ranks"):
        start_ranks_as_forks(request["ranks"])
    moments = Moments(request["moments"]) if request.get("moments") else None
    status: Any = 0
    try:
        if program == "-m":
            sys.argv = arguments
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        elif program == "-c":
            sys.argv = ["-c", *arguments[1:]]
            exec(arguments[0], {"__name__": "__main__"})
        else:
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
    except SystemExit as ending:
        status = ending.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    if moments:
        moments.on = False
        Path(f"{moments.out}.moments").write_text(json.dumps(moments.counts))
    return status if isinstance(status, int) else 1


def main() -> None:
    """Answer requests until stdin ends."""
    for name in IMPORTS:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    Plugins.instance()  # Hydra imports them all
    gc.freeze()  # a collection in a fork would copy this process's memory
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(sys.argv[1])
    listener.listen(64)
    running: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor of the process, its id and the connection
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    for source in (0, listener):
        selector.register(source, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == 0:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 2)
                pid = os.fork()
                if not pid:
                    for descriptor in (listener, connection, selector, *(one for _, one in running.values())):
                        descriptor.close()
                    leave(functools.partial(run, json.loads(message), streams))
                for stream in streams:
                    os.close(stream)
                end = os.pidfd_open(pid)
                running[end] = pid, connection
                selector.register(end, selectors.EVENT_READ)
                connection.send(json.dumps(pid).encode())
            else:
                selector.unregister(key.fd)
                os.close(key.fd)
                pid, connection = running.pop(key.fd)
                _, ending = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):  # the other side has gone
                    connection.send(json.dumps(os.waitstatus_to_exitcode(ending)).encode())
                connection.close()


if __name__ == "__main__":
    main()
