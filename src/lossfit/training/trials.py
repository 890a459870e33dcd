"""Small trials of a run's parts before training starts, so that a part that cannot work is refused by its key."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lossfit import schedules
from lossfit.config import Config, call
from lossfit.data import ImageDataModule
from lossfit.errors import ConfigError
from lossfit.optim import traits
from lossfit.optim.traits import Traits


def check_accelerator(trainer: Config) -> None:
    """Raise ConfigError for an accelerator that this machine does not have."""
    wanted = trainer.get("accelerator", "auto")
    available = {"gpu": torch.accelerator.is_available(), "cuda": torch.cuda.is_available()}
    available |= {"mps": torch.backends.mps.is_available(), "tpu": find_spec("torch_xla") is not None}
    if not available.get(wanted, True):
        raise ConfigError(
            f"trainer.accelerator={wanted}: torch {torch.__version__} finds no such device on this machine; "
            f"take trainer=cpu, or trainer=auto for the best there is"
        )


def try_model(model: nn.Module, data: ImageDataModule) -> torch.Tensor:
    """Return the logits of two random images; raise ConfigError unless they are logits (2, num_classes)."""
    shape = "x".join(map(str, data.image_shape))
    training = model.training
    try:
        with torch.no_grad():
            logits = model.eval()(torch.randn(2, *data.image_shape, generator=torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ConfigError(
            f"model: cannot take images of {shape}: {error}; for torchvision's models set model.resize=224"
        ) from error
    finally:
        model.train(training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, len(data.task.names)):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"model: must give logits (N, {len(data.task.names)}), got {got} for two images")
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(2)):
        raise ConfigError("model: gives probabilities, and the loss needs logits: leave out its last softmax")
    return logits


def try_loss(loss: nn.Module, logits: torch.Tensor, data: ImageDataModule) -> None:
    """Compute the loss of two samples; raise ConfigError unless it is finite and has a gradient."""
    labels = torch.tensor([0, 1])
    target = F.one_hot(labels, len(data.task.names)).float() if data.mix else labels
    value = call(loss, "loss", logits.requires_grad_().clone(), target)  # which it may write into
    if not value.is_floating_point() or not value.requires_grad:
        raise ConfigError(
            f"loss: its value has {'no gradient' if value.is_floating_point() else f'dtype {value.dtype}'}: compute it "
            f"from the logits with torch's functions, without detach, argmax, item or numpy"
        )
    if not value.isfinite():
        raise ConfigError(f"loss: its value is {value.item():g} for the untrained model's outputs of two images")


def try_optimizer(optimizer: Callable[..., Any], scheduler: Any) -> Traits:
    """Apply the optimizer to one parameter and the schedule to it; return the optimizer's traits.

    Raises ConfigError for arguments that either refuses, and for a schedule that has no effect on the optimizer.
    """
    trial = call(optimizer, "optimizer", [nn.Parameter(torch.zeros(1, 1))])
    call(scheduler, "scheduler", trial, total_steps=100)
    found = traits(trial)
    if not found.uses_lr_schedule and scheduler.func is not schedules.none:
        name = type(trial).__name__
        raise ConfigError(f"scheduler must be none with {name}, on which a falling lr is lost: set scheduler=none")
    return found
