"""Runs train.py's command line as often as it is asked to, each time in a process forked from this one.

All imports are done before the fork, so that a run takes a second; it can be killed or held at a chosen moment. Reads a
request a line, JSON, from stdin, and answers with a number, JSON, on stdout:

    {"arguments": [...], "folder": RUN, "out": FILE, "cwd": FOLDER, ...}
        starts `python train.py ARGUMENTS`, or with "module": true `python -m lossfit ARGUMENTS`, and answers with its
        process id; stdout and stderr go to FILE.out and FILE.err
    {"wait": PID}
        answers with its exit status when it is over, negative for a signal

Moments are counted from 1 for each kind. "write": right before and right after a file below the run folder is opened
for writing, and before one is renamed or removed or a folder is made; "step": before and after a step of the optimizer;
"half": when half a checkpoint is written. "die": {KIND: NUMBER} kills the process at a moment with SIGKILL; "hold":
{KIND: NUMBER} has it open the FIFO FILE.here, and go on when the FIFO FILE.go is opened. FILE.moments says how many
moments of each kind a process had that was not killed.
"""

import atexit
import builtins
import contextlib
import importlib
import io
import json
import os
import runpy
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

ROOT = Path(__file__).parents[1]
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
        register_optimizer_step_pre_hook(lambda *_: self.come("step"))
        register_optimizer_step_post_hook(lambda *_: self.come("step"))
        builtins.open = io.open = self.told(io.open)
        os.open = self.told(os.open)
        torch.save = self.halved(torch.save)

    def come(self, kind: str) -> None:
        """A moment has come."""
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
        if self.on and writes and self.ours(details[0]):
            self.come("write")

    def ours(self, path: Any) -> bool:
        """Whether a path lies in the run's folder or is it."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(self.folder)

    def told(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that opens files, after which a moment comes."""

        def opening(path: Any, mode: Any = "r", *args: Any, **options: Any) -> Any:
            opened = function(path, mode, *args, **options)
            writes = mode & WRITES if isinstance(mode, int) else set(mode) & set("wax+")
            if self.on and writes and self.ours(path):
                self.come("write")
            return opened

        return opening

    def halved(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """torch.save, that may write the first half only."""

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


def run(request: dict[str, Any]) -> int:
    """Run the command line in this process; return its exit status."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['out']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(request["cwd"])
    sys.argv = [str(ROOT / "train.py"), *request["arguments"]]
    moments = Moments(request)
    status: Any = 0
    try:
        if request.get("module"):
            runpy.run_module("lossfit", run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as ending:
        status = ending.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    moments.on = False
    Path(f"{request['out']}.moments").write_text(json.dumps(moments.counts))
    return status if isinstance(status, int) else 1


def main() -> None:
    """Answer requests until there are no more."""
    for name in (
        "lossfit.cli",
        "lossfit.training.engine",
        "lossfit.loggers",
        "torch.utils.tensorboard",
        "matplotlib.figure",
    ):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, ending = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(ending)
        else:
            answer = os.fork()
            if not answer:
                status = 1
                try:
                    status = run(request)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
        print(json.dumps(answer), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
