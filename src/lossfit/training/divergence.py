"""Ends a run whose loss or weights are not finite any more."""

import math
from typing import NoReturn

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lossfit.errors import Diverged

CHECK_EVERY = 10  # steps between two checks of the loss, when a check waits for a device or for other ranks


def check_step(trainer: Trainer, loss: Tensor, loss_sum: Tensor, batch_idx: int) -> None:
    """Raise Diverged if a step's loss is not finite; on other devices and among ranks, if the epoch's sum is not."""
    if loss.device.type == "cpu" and trainer.world_size == 1:
        if not math.isfinite(loss):
            fail(trainer, f"the training loss was {loss:g} {_now(trainer)}", trainer.global_step + 1, True)
    elif (batch_idx + 1) % CHECK_EVERY == 0:
        bad = not math.isfinite(loss_sum)
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            what = f"the training loss was not finite {_now(trainer)} or one of the {CHECK_EVERY - 1} before"
            fail(trainer, what, trainer.global_step + 1)


def check_weights(trainer: Trainer, module: nn.Module) -> None:
    """Raise Diverged if a trainable parameter is not finite."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not parameter.isfinite().all():
            fail(trainer, f"the weights {name} were not finite after step {trainer.global_step}")


def fail(trainer: Trainer, what: str, step: int | None = None, in_this_batch: bool = False) -> NoReturn:
    """Raise Diverged with what is not finite, and the learning rate. step: None for the last one."""
    message = f"{what}, with learning rate {learning_rate(trainer):g}"
    raise Diverged(message, trainer.global_step if step is None else step, in_this_batch)


def learning_rate(trainer: Trainer) -> float:
    """Return the learning rate of the first parameter group."""
    return trainer.optimizers[0].param_groups[0]["lr"]


def _now(trainer: Trainer) -> str:
    return f"in step {trainer.global_step + 1}, epoch {trainer.current_epoch + 1}"
