"""Parameter groups, and the optimizer that is made for them.

The config's part `optimizer` is a partial of a torch.optim.Optimizer class. It is called once, with the groups.
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
    """Split the trainable parameters: matrices and kernels get the optimizer's weight decay, 1-D parameters get none.

    Biases and the gains of norm layers are 1-D: a pull to zero limits what the layer can express and does not
    regularise. The parameters of the loss, if it has any, are a third group, also without weight decay. Each parameter
    is in one group; an empty group is left out.
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
    """Call the partial with the groups of model and loss, with torch's fused kernels where class and device have them.

    `fused` of the optimizer's config wins if it is not null.
    """
    groups = parameter_groups(model, loss)
    if optimizer.keywords.get("fused") is None and "fused" in inspect.signature(optimizer.func).parameters:
        device = groups[0]["params"][0].device.type
        supported = ("cpu",) if optimizer.func is Adagrad else ("cpu", "cuda", "mps")
        if allow_fused and device in supported:
            return optimizer(groups, fused=True)
    return optimizer(groups)


def as_groups(params: ParamsT) -> list[dict[str, Any]]:
    """Return parameters as groups, if they are given as tensors in one."""
    given: list[Any] = list(params)
    return given if given and isinstance(given[0], dict) else [{"params": given}]


def call_closure(closure: Callable[[], Any] | None) -> Any:
    """Call a closure with gradients enabled, since `step` runs without, and return its loss; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
