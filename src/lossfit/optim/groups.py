"""Parameter groups, and how an optimizer is made for them.

An optimizer option is a partial of a torch.optim class: it is applied once, to the groups made here.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Adagrad, Optimizer
from torch.optim.optimizer import ParamsT


def parameter_groups(model: nn.Module, loss: nn.Module | None = None) -> list[dict[str, Any]]:
    """Split the trainable parameters: the optimizer's weight decay for matrices and kernels, none for 1-D ones.

    Biases and the gains of norms are 1-D: pulling them to zero changes what the layer can express and
    regularises nothing. The parameters of the loss, if it has any, are a third group, also without weight decay. Each
    parameter is in one group; an empty group is left out.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    of_loss = [p for p in loss.parameters() if p.requires_grad] if loss is not None else []
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim > 1]},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
        {"params": of_loss, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(
    optimizer: partial[Optimizer], model: nn.Module, loss: nn.Module | None = None, allow_fused: bool = True
) -> Optimizer:
    """Apply the partial to the groups of model and loss, with torch's fused kernels where class and device have them.

    An optimizer whose `fused` is set in its config is left as configured.
    """
    groups = parameter_groups(model, loss)
    if optimizer.keywords.get("fused") is None and "fused" in inspect.signature(optimizer.func).parameters:
        device = groups[0]["params"][0].device.type
        supported = ("cpu",) if optimizer.func is Adagrad else ("cpu", "cuda", "mps")
        if allow_fused and device in supported:
            return optimizer(groups, fused=True)
    return optimizer(groups)


def as_groups(params: ParamsT) -> list[dict[str, Any]]:
    """Return parameters, given as tensors or as groups, as groups."""
    given: list[Any] = list(params)
    return given if given and isinstance(given[0], dict) else [{"params": given}]


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """Return what an optimizer's closure gives, with gradients, for a step that computes none; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
