"""Starts Python programs as subprocess does, but as forks of one process that has torch and lossfit imported.

A program so started begins after some 20 ms in place of 5 s. Use it wherever a test is not about the start itself:

    done = run(["train.py", "data=sample"], env={"SEED": "1"})     as subprocess.run([sys.executable, "train.py", ...])
    process = Forked(["train.py", "data=sample"], stdout=PIPE)      as subprocess.Popen

What Python reads at its own start has no effect: sitecustomize.py, options such as -X, OMP_NUM_THREADS. This file
imports the standard library alone. The other side is fork_server.py.
"""

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
ADDRESS = "LOSSFIT_TEST_FORKS"  # environment variable: the socket of a server that is up


class ForkServer:
    """A process that forks. It imports the lossfit of root/src and ends with the process that started it."""

    def __init__(self, root: Path = ROOT) -> None:
        self.folder = tempfile.mkdtemp(prefix="forks")  # a socket's path may have 107 letters, a test's folder has more
        self.address = f"{self.folder}/socket"
        path = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", self.address],
            cwd=root, env={**os.environ, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the fork server did not start"

    def close(self) -> None:
        """End the server and what it has forked."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def server_address() -> str:
    """Return the address of this process's server, started at the first call."""
    if ADDRESS in os.environ:
        return os.environ[ADDRESS]
    server = ForkServer()
    atexit.register(server.close)
    return server.address


class Forked:
    """A running fork, with the methods of subprocess.Popen that the tests use."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path | str = ROOT,
        env: Mapping[str, str] | None = None,
        stdout: IO[str] | int | None = None,
        stderr: IO[str] | int | None = None,
        moments: dict[str, Any] | None = None,
        ranks: int = 0,
        address: str | None = None,
    ) -> None:
        """arguments: what follows `python`. env: variables to add. moments, ranks: see fork_server.py."""
        self.args = arguments
        self.returncode: int | None = None
        self.stdout, out = _stream(stdout, 1)
        self.stderr, err = (None, out) if stderr == subprocess.STDOUT else _stream(stderr, 2)
        request = {"arguments": arguments, "cwd": str(cwd), "env": {**os.environ, **(env or {})}}
        request |= {"moments": moments, "ranks": ranks}
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.connect(address or server_address())
        socket.send_fds(self.connection, [json.dumps(request).encode()], [out, err])
        self.pid: int = json.loads(self.connection.recv(100))
        for descriptor, given in ((out, stdout), (err, stderr)):
            if given == subprocess.PIPE:
                os.close(descriptor)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        if self.returncode is None:
            self.connection.settimeout(timeout)
            try:
                self.returncode = json.loads(self.connection.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0) from None
            self.connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=0)
        return None

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; return the rest of stdout and stderr."""
        with ThreadPoolExecutor(2) as pool:
            read = [pool.submit(stream.read) if stream else None for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            out, err = (one.result() if one else "" for one in read)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _stream(given: IO[str] | int | None, default: int) -> tuple[IO[str] | None, int]:
    """Return the end to read from, if any, and the descriptor to write to."""
    if given == subprocess.PIPE:
        read, write = os.pipe()
        return open(read, encoding="utf-8", errors="replace"), write
    return None, default if given is None else given if isinstance(given, int) else given.fileno()


def run(arguments: Sequence[str], timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its stdout and stderr are captured."""
    process = Forked(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(timeout)
    return subprocess.CompletedProcess(["python", *arguments], process.wait(), out, err)
