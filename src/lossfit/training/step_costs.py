"""What makes a step of Lightning's loop cheaper, which counts for small networks."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from types import NoneType
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.profilers import PassThroughProfiler
from torch import Tensor

PLAIN = (str, int, float, NoneType, Tensor)  # types of attributes that are set in each step
NOTHING: AbstractContextManager[Any] = nullcontext()
Function = TypeVar("Function", bound=Callable[..., Any])


class NoProfiler(PassThroughProfiler):
    """Measures nothing, as PassThroughProfiler, and makes no contexts; Lightning asks for 55 a step, around hooks."""

    def profile(self, action_name: str) -> Any:
        """Return the same context for all actions."""
        return NOTHING


class PlainAttributes:
    """Sets plain values as any object does, for a module that has no parameters and buffers but those of its modules.

    A torch module first looks whether a value is a parameter, a buffer or a module, and Lightning sets the name of the
    hook that it calls 48 times a step.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) in PLAIN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


def with_signature(function: Function) -> Function:
    """Keep a function's signature, which Lightning reads in each step for training_step."""
    function.__signature__ = signature(function)  # type: ignore[attr-defined]
    return function


def log_step(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Log values of the step that is being trained, as a module's `log` does.

    With a value in `log`, Lightning computes its results in each of the following steps.
    """
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, trainer.global_step)
        logger.save()
