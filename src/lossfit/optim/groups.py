"""Parameter groups, and the optimizer that is made for them.

The config's part `optimizer` is a partial of a torch.optim.Optimizer class. It is called once, with the groups, which
stay the same for the whole run: what is frozen at first is in them too. Optimizers skip a parameter without a gradient,
so that a frozen one has no step, no weight decay and no state.

A model may have attributes, by the names of its parameters (models/finetuning.py): `frozen_at_first`, those that can be
unfrozen later, and `lr_scales`, factors on the learning rate; and `heads`, the names of the modules of its head.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Adagrad, Optimizer
from torch.optim.optimizer import ParamsT


def parameter_groups(model: nn.Module, loss: nn.Module | None = None, head_apart: bool = False) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices and kernels get the optimizer's weight decay, 1-D parameters get none.

    Biases and the gains of norm layers are 1-D: a pull to zero limits what the layer can express and does not
    regularise. Parameters with another `lr_scale`, and those that are frozen at first, are in groups of their own; the
    first groups are those that train from the start with the largest learning rate. The parameters of the loss, if it
    has any, are the last group, also without weight decay. Each parameter is in one group, and no group is empty.
    head_apart: put the matrices of the head into a group of their own, with `is_head` True.
    """
    later: Collection[str] = getattr(model, "frozen_at_first", ())  # type: ignore[assignment]
    scales: Mapping[str, float] = getattr(model, "lr_scales", {})  # type: ignore[assignment]
    of_head = _of_head(model) if head_apart else set()
    found: dict[tuple[bool, float, bool, bool], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad or name in later:
            is_head = p.ndim > 1 and name in of_head
            found.setdefault((name in later, -scales.get(name, 1.0), p.ndim <= 1, is_head), []).append(p)
    groups: list[dict[str, Any]] = []
    for (_, minus_scale, is_vector, is_head), parameters in sorted(found.items(), key=lambda item: item[0]):
        groups.append({"params": parameters, **({"weight_decay": 0.0} if is_vector else {})})
        if is_head:
            groups[-1]["is_head"] = True
        if scales:
            groups[-1]["lr_scale"] = -minus_scale
    of_loss = [p for p in loss.parameters() if p.requires_grad] if loss is not None else []
    return [*groups, {"params": of_loss, "weight_decay": 0.0}] if of_loss else groups


def _of_head(model: nn.Module) -> set[str]:
    """Return the names of the parameters of the head; of a model that does not say it, those of the last Linear."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    heads: tuple[str, ...] = getattr(model, "heads", tuple(linear[-1:]))  # type: ignore[assignment]
    return {name for name, _ in model.named_parameters() if name.rpartition(".")[0] in heads}


def make_optimizer(
    optimizer: partial[Optimizer], model: nn.Module, loss: nn.Module | None = None, allow_fused: bool = True
) -> Optimizer:
    """Call the partial with the groups of model and loss, with torch's fused kernels where class and device have them.

    An optimizer whose config has a `head_lr` gets the head in groups of its own.

    `fused` of the optimizer's config wins if it is not null.
    """
    groups = parameter_groups(model, loss, head_apart=optimizer.keywords.get("head_lr") is not None)
    options: dict[str, Any] = {}
    if optimizer.keywords.get("fused") is None and "fused" in inspect.signature(optimizer.func).parameters:
        device = groups[0]["params"][0].device.type
        supported = ("cpu",) if optimizer.func is Adagrad else ("cpu", "cuda", "mps")
        if allow_fused and device in supported:
            options["fused"] = True
    made = optimizer(groups, **options)
    for group in made.param_groups:
        if "lr_scale" in group:  # scaled here, since an optimizer may have several rates, as Muon does
            group["lr"] *= group.pop("lr_scale")
    return made


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
