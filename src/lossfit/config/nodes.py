"""A config's nodes: what they may name, the arguments of it, and the objects that are built from them.

A config is a plain dict. A node with `_target_` is a call: the import path of a class or function, with the node's
other keys as arguments; with `_partial_: true` it becomes a functools.partial. If a config leaves an argument named in
FACTS null or out, lossfit passes its value. Only public targets under ALLOWED are called. `function` of the options
named custom imports whatever it names: that is for configs that the user composed; trust.py decides what a run folder
from elsewhere may name, and inference what a checkpoint may.
"""

import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any

from lossfit.errors import ConfigError, did_you_mean

Config = dict[str, Any]

ALLOWED = (
    *(f"lossfit.{room}" for room in ("callbacks", "data", "loggers", "losses", "metrics")),
    *(f"lossfit.{room}" for room in ("models", "optim", "schedules", "diagnosis.rules")),
    *(f"lightning.pytorch.{room}" for room in ("callbacks", "loggers", "plugins", "profilers", "strategies")),
    "lightning.pytorch.Trainer",
    "lightning.pytorch.trainer.trainer",
    "torch.nn",
    "torch.optim",
    "torchvision.models",
    "torchvision.transforms",
    "torchmetrics",
    "timm",
    "optuna.pruners",
    "optuna.samplers",
)
FACTS = {  # arguments that are filled in when they are null or absent: who supplies each, and who takes it
    "seed": "the config, to data modules",
    "processes": "the trainer, to data modules: the ranks on this machine",
    "save_dir": "the run folder, to loggers, Diagnosis, Pruning and custom callbacks",
    "dirpath": "the run folder, to callbacks that save checkpoints",
    "all_metrics": "the task, to TensorBoardLogger",
    "first_step": "the resumed checkpoint, to TensorBoardLogger",
    "task": "the data, to losses that differ by task",
    "num_classes": "the data, to models and losses: the number of outputs",
    "image_shape": "the data, to models",
    "class_counts": "the data, to losses",
    "class_names": "the data, to ForwardCorrection and custom callbacks",
    "batches_per_epoch": "the data, to optimizers that need all samples at each step",
    "noise_matrix": "the data, to ForwardCorrection",
    "cost_matrix": "the config's costs, to ExpectedCost and LogBilinear",
    "logit_scale": "the model, to LDAM",
    "backbone_frozen": "the model, to Unfreeze",
    "total_steps": "the trainer, to schedules",
}
MISSING = "???"  # OmegaConf's mark for a value that must be given
SPECIAL = frozenset({"_target_", "_partial_"})


def build(node: Any, key: str, **facts: Any) -> Any:
    """Make what a node describes; `key` is its path in the config, for messages.

    Raises ConfigError, naming the key, with the target's message about its arguments.
    """
    if isinstance(node, list):
        return [build(item, f"{key}[{i}]", **facts) for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    values = {name: build(value, f"{key}.{name}", **facts) for name, value in node.items() if name not in SPECIAL}
    if "_target_" not in node:
        return values
    target = locate(node["_target_"], key)
    parameters, _ = arguments(target)
    values |= {k: v for k, v in facts.items() if k in parameters and values.get(k) is None}
    if node.get("_partial_"):
        return functools.partial(target, **values)
    return call(target, key, **values)


def call(target: Callable[..., Any], key: str, *args: Any, **values: Any) -> Any:
    """Call a target for the config's node at `key`; raise ConfigError, which names the key, for what it raises."""
    try:
        return target(*args, **values)
    except ConfigError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        starts_with_argument = re.match(r"\w+( must |=)", text)  # as lossfit's own messages do
        raise ConfigError(f"{key}.{text}" if starts_with_argument else f"{key}: {text}") from error


def locate(path: Any, key: str) -> Callable[..., Any]:
    """Import the callable that a `_target_` names; raise ConfigError if it is not allowed or does not exist."""
    if not isinstance(path, str) or not _is_allowed(path) or "._" in path:
        raise ConfigError(f"{key}._target_={path} is not allowed: {_what_is_allowed(path, key)}")
    found: Any = None
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if length > 1 and error.name is not None and module.startswith(error.name):
                continue  # a class, not a module
            raise ConfigError(
                f"{key}._target_={path} needs the package {error.name}: pip install {error.name}"
            ) from error
        for name in parts[length:]:
            if not hasattr(found, name):
                public = [name for name in dir(found) if not name.startswith("_")]
                raise ConfigError(f"{key}._target_={path}: no {name!r} in {module}{did_you_mean(name, public)}")
            found = getattr(found, name)
        break
    is_method = "." in getattr(found, "__qualname__", "")
    # a module's imports, such as torch.os.system, are attributes of it too
    if not callable(found) or is_method or not _is_allowed(str(getattr(found, "__module__", ""))):
        raise ConfigError(
            f"{key}._target_={path} is no class or function of its own module: {_what_is_allowed(path, key)}"
        )
    return found


def _is_allowed(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in ALLOWED)


def _what_is_allowed(path: Any, key: str) -> str:
    """Say what a `_target_` may name, and how the user's own code is given."""
    roots = dict.fromkeys(prefix.partition(".")[0] for prefix in ALLOWED)
    allowed = f"it must be a public class or function of {', '.join(roots)}"
    part = key.partition(".")[0]
    if part not in ("model", "loss", "callbacks", "metrics"):
        return allowed
    function = f"{part}.custom.function" if part in ("callbacks", "metrics") else f"{part}.function"
    plus = "+" if part == "callbacks" else ""
    return f"{allowed}; for your own code: {plus}{part}=custom {function}={path}"


def arguments(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return a target's named arguments, and whether it takes others too.

    A class whose constructor passes **options on has those of the class it inherits from as well.
    """
    constructors: Sequence[Callable[..., Any]] = [target]
    if isinstance(target, type):
        constructors = [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c) and c is not object]
    found: dict[str, inspect.Parameter] = {}
    for constructor in constructors:
        takes_kwargs = False
        for name, parameter in inspect.signature(constructor).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                takes_kwargs = True
            elif name != "self" and parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, parameter.replace(annotation=_annotations(constructor).get(name, Any)))
        if not takes_kwargs:
            return found, False
    return found, bool(constructors)


@functools.cache
def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # such as a name that only type checkers know
        return {}
