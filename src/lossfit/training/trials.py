"""Small trials of a run's parts before training starts, so that a part that cannot work is refused by its key."""

from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lossfit import option_files, schedules
from lossfit.config import Config, call, locate
from lossfit.errors import ConfigError, one_line
from lossfit.optim import traits
from lossfit.optim.traits import Traits
from lossfit.tasks.task import Task


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


def check_loss(node: Config, task: Task) -> None:
    """Take the number of outputs from a loss's class; raise ConfigError for a loss that is not for the task."""
    target = locate(node["_target_"], "loss")
    tasks = getattr(target, "tasks", None)
    if tasks is not None and task.name not in tasks:
        raise ConfigError(
            f"loss: {target.__name__} is for {' and '.join(tasks)}, and the data are for {task.name}: take one of "
            f"{', '.join(losses_for(task.name))}"
        )
    task.take_outputs(target)


def losses_for(task: str) -> list[str]:
    """Return the options of the group `loss` that are for a task, the user's own last."""
    names = sorted(option_files.options("loss"), key=lambda name: (name == "custom", name))
    targets = {name: option_files.target("loss", name) for name in names}
    return [name for name, path in targets.items() if task in getattr(locate(path, "loss"), "tasks", (task,))]


def try_model(model: nn.Module, image_shape: tuple[int, ...], task: Task) -> torch.Tensor:
    """Return the outputs for two random images; raise ConfigError unless they are (2, task.outputs)."""
    training = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.randn(2, *image_shape, generator=torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ConfigError(
            f"model: cannot take images of {'x'.join(map(str, image_shape))}: {error}; for torchvision's models set "
            f"model.resize=224"
        ) from error
    finally:
        model.train(training)
    classes = task.returns == "probabilities"
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, task.outputs):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        wanted = f"{'logits' if classes else 'outputs'} (N, {task.outputs})"
        raise ConfigError(f"model: must give {wanted}, got {got} for two images")
    if not outputs.isfinite().all():
        raise ConfigError("model: its outputs for two random images are not finite: its weights are too large")
    if classes and (outputs >= 0).all() and torch.allclose(outputs.sum(1), torch.ones(2)):
        raise ConfigError("model: gives probabilities, and the loss needs logits: leave out its last softmax")
    return outputs


def try_one_image(model: nn.Module, image_shape: tuple[int, ...]) -> None:
    """Raise ConfigError for a model that cannot be trained on a batch of one image, as a batch norm of one pixel."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # of dropout
        try:
            deepcopy(model).float().train()(torch.zeros(1, *image_shape))
        except ValueError as error:
            raise ConfigError(
                f"data.batch_size: a batch of an epoch has one image, on which the model cannot be trained "
                f"({one_line(error)}): take another data.batch_size"
            ) from error


def try_loss(loss: nn.Module, outputs: torch.Tensor, task: Task, mixed: bool) -> None:
    """Compute the loss of two samples and its gradient; raise ConfigError unless it is finite and has one."""
    target = task.encode(task.trial_target())
    if mixed and target.ndim == 1:
        target = F.one_hot(target, len(task.names)).float()
    elif mixed and not getattr(loss, "soft_targets", True):
        raise ConfigError(f"loss: {type(loss).__name__} takes no soft targets, which data.mix makes: set data/mix=none")
    value = call(loss, "loss", outputs.requires_grad_().clone(), target)  # which it may write into
    if not value.is_floating_point() or not value.requires_grad:
        raise ConfigError(
            f"loss: its value has {'no gradient' if value.is_floating_point() else f'dtype {value.dtype}'}: compute it "
            f"from the {'logits' if task.returns == 'probabilities' else 'outputs'} with torch's functions, without "
            f"detach, argmax, item or numpy"
        )
    if not value.isfinite():
        raise ConfigError(f"loss: its value is {value.item():g} for the untrained model's outputs of two images")
    try:
        value.backward()
    except RuntimeError as error:  # such as after an in-place change of the outputs
        raise ConfigError(f"loss: its gradient cannot be computed: {one_line(error)}") from error


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
