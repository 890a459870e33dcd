"""The models that a checkpoint may name, and how one is built from a description that is not trusted.

A description is a config's node: `_target_` and arguments. Only the builders listed here are called, with plain values,
and the model must have the checkpoint's tensors, by name and shape, before any memory is allocated for it.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision import models as torchvision_models

from lossfit.config import FACTS, arguments, call
from lossfit.errors import ConfigError
from lossfit.overrides import PRETRAINED
from lossfit.plain_values import is_plain, shown

MAX_DEPTH = 3  # of lists among the arguments
MAX_ITEMS = 1000  # of a list
MAX_NUMBER = 2**31
MAX_ARGUMENT = 10**7  # of a torch function, such as arange
PARAMETERS_ARE_MADE_BY = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


@functools.cache
def builders() -> dict[str, Callable[..., nn.Module]]:
    """Return lossfit's models, which take image_shape, and torchvision's classification models, by import path."""
    package = importlib.import_module("lossfit.models")
    found: dict[str, Callable[..., nn.Module]] = {}
    for module in pkgutil.iter_modules(package.__path__, "lossfit.models."):
        if module.name != "lossfit.models.custom":
            for name, value in vars(importlib.import_module(module.name)).items():
                own = getattr(value, "__module__", None) == module.name and not name.startswith("_")
                if own and callable(value) and "image_shape" in inspect.signature(value).parameters:
                    found[f"{module.name}.{name}"] = value
    for name in torchvision_models.list_models(module=torchvision_models):
        found[f"torchvision.models.{name}"] = torchvision_models.get_model_builder(name)
    return found


def from_checkpoint(node: Mapping[str, Any], weights: Mapping[str, Tensor], **facts: Any) -> nn.Module:
    """Build the model that a checkpoint describes, without loading its weights.

    Raises ConfigError for an unknown builder, for arguments that are no plain values, and for a model whose tensors are
    not those of `weights`.
    """
    target = node.get("_target_")
    builder = builders().get(target) if isinstance(target, str) else None
    if builder is None:
        raise ConfigError(
            f"its model is {shown(target)}, which is none of lossfit's: give the model itself, "
            f"lossfit.load(PATH, model=MyModel(...)), or, if you trust whoever made the file, trust_code=True "
            f"(--trust-code, trust_code=true)"
        )
    left_out = ("_target_", "freeze")  # a loaded model is whole
    values = {name: value for name, value in without_pretrained(node).items() if name not in left_out}
    for name, value in values.items():
        known = isinstance(name, str) and name.isidentifier() and len(name) < 100 and not name.startswith("_")
        if not known or not is_plain(value, MAX_DEPTH) or isinstance(value, dict) or not _is_small(value):
            raise ConfigError(f"its model has {shown(name)}: {shown(value)}, which is no plain value for {target}")
    parameters, _ = arguments(builder)
    values |= {k: v for k, v in facts.items() if k in parameters and k in FACTS and values.get(k) is None}
    with _WithoutMemory(10_000 + 200 * len(weights)):
        outline = call(builder, "model", **values)
    if differs := difference(weights, outline.state_dict()):
        name, has, wanted = differs
        raise ConfigError(
            f"its weights do not fit its own model {target}: {shown(name)} has shape {has}, in the model {wanted}"
        )
    return call(builder, "model", **values)


def without_pretrained(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's description without the arguments that make it download pretrained weights."""
    return {name: value for name, value in node.items() if not PRETRAINED.search(str(name))}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first name whose shapes differ in two state dicts, and both shapes, `none` if a dict lacks it."""
    for name in dict.fromkeys([*other, *one]):
        shapes = [tuple(getattr(state[name], "shape", ())) if name in state else "none" for state in (one, other)]
        if shapes[0] != shapes[1]:
            return name, shapes[0], shapes[1]
    return None


def _is_small(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= MAX_ITEMS and all(map(_is_small, value))
    return not isinstance(value, (int, float)) or abs(value) <= MAX_NUMBER


class _WithoutMemory(TorchFunctionMode):
    """Builds a model without memory for its tensors; stops one that calls torch far more than its weights need."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0 or any(type(value) is int and value > MAX_ARGUMENT for value in args):
            raise ConfigError("its model is far larger than its weights")
        on_meta = {"device": "meta"} if function in PARAMETERS_ARE_MADE_BY else {}
        return function(*args, **{**(kwargs or {}), **on_meta})
