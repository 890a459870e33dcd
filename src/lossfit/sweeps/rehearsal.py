"""Configs tried before a sweep starts, in a process of their own. Imports no torch until then."""

import gc
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import TypeVar

from lossfit.config import Config
from lossfit.config.trainer_bounds import AUTO

T = TypeVar("T")


def rehearse(configs: Sequence[Config]) -> list[str]:
    """Build the run of each config; return the messages with which runs would be refused."""
    import lossfit.training.engine

    def silently() -> list[str]:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            logging.disable()
            return lossfit.training.engine.rehearse(configs)

    return in_a_fork(silently, failed=["the process that tried the jobs' configs ended without a result"])


def with_precisions(configs: Sequence[Config]) -> list[Config]:
    """Return the configs with what trainer.precision=auto becomes on this machine."""
    if all(config["trainer"].get("precision") != AUTO for config in configs):
        return [*configs]
    from lossfit.training.precision import with_precision

    return in_a_fork(lambda: [*map(with_precision, configs)], failed=[*configs])


def in_a_fork(function: Callable[[], T], failed: T) -> T:
    """Call a function in a forked process and return its result, or `failed` if the process dies; on Linux only.

    CUDA and thread pools that the function initialises would not survive the later forks of this process.
    """
    if sys.platform != "linux":
        return function()
    import multiprocessing  # the command line imports this file, and needs no process

    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def answer() -> None:
        gc.freeze()  # a collection would copy all of the parent's memory
        sender.send(function())

    process = context.Process(target=answer)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return failed
    finally:
        process.join()
