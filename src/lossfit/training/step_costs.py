"""What makes a step of Lightning's loop cheaper, which counts for small networks."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.profilers import PassThroughProfiler

NOTHING: AbstractContextManager[Any] = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measures nothing, as PassThroughProfiler, and makes no contexts; Lightning asks for 55 a step, around hooks."""

    def profile(self, action_name: str) -> Any:
        """Return the same context for all actions."""
        return NOTHING


def log_step(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Log values of the step that is being trained, as a module's `log` does.

    With a value in `log`, Lightning computes its results in each of the following steps.
    """
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": trainer.current_epoch}, trainer.global_step)
        logger.save()
