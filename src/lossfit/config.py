"""From a config to objects: `check` finds a config's mistakes, `build` makes what it describes.

A config is a plain dict. A node with `_target_` is a call: the import path of a class or function, with the
node's other keys as arguments; with `_partial_: true` it becomes a functools.partial. Facts known only at
run time (see FACTS) are handed to the targets that take an argument of that name. Only public targets under
ALLOWED are called. `function` of the options named custom imports whatever it names: that is for configs that a person
composed; trust.py decides what a run folder from elsewhere may name, and inference what a checkpoint may.
"""

import functools
import importlib
import importlib.util
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lossfit.errors import ConfigError, did_you_mean

Config = dict[str, Any]

ALLOWED = (
    *(f"lossfit.{room}" for room in ("callbacks", "data", "loggers", "losses", "metrics")),
    *(f"lossfit.{room}" for room in ("models", "optim", "schedules")),
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
PARTS = ("data", "model", "loss", "optimizer", "scheduler", "metrics", "callbacks", "logger", "trainer")
OPTIONAL = ("metrics", "callbacks", "logger")  # absent where none is chosen
OTHER_KEYS = {
    "seed": int | None,
    "test": bool,
    "compile": bool,
    "costs": dict[str, Any] | None,
    "init_from": str | None,
    "choices": dict[str, Any] | None,
}
FACTS = frozenset(  # arguments that the engine supplies
    {
        *("seed", "num_classes", "class_counts", "class_names", "image_shape", "cost_matrix"),  # of run and data
        *("logit_scale", "batches_per_epoch", "total_steps", "first_step", "save_dir", "dirpath"),  # of model to run
    }
)
METRICS = ("train/loss", "train/acc", "val/loss", "val/acc", "val/nll")  # what schedules and callbacks can watch
SPECIAL = frozenset({"_target_", "_partial_"})
A_CALL = "a mapping with a _target_"
REQUIRED = ("seed", "test", "compile")  # of OTHER_KEYS
MEMBERS = {  # what each option of these parts must be a subclass of
    "metrics": "torchmetrics.Metric",
    "callbacks": "lightning.pytorch.callbacks.Callback",
    "logger": "lightning.pytorch.loggers.Logger",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _least(bound: int, *others: int) -> Callable[[Any], bool]:
    """Whether a number is at least `bound`, or one of the others; a value of another type is refused elsewhere."""
    return lambda value: not _is_number(value) or value in others or value >= bound


def _share(bound: int) -> Callable[[Any], bool]:
    """Whether a number of batches is at least `bound`, or a fraction of them, not 0 if `bound` is not."""

    def is_within(value: Any) -> bool:
        if not _is_number(value):
            return True
        return value >= bound if isinstance(value, int) else 0 <= value <= 1 and (value > 0 or bound == 0)

    return is_within


def _is_devices(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _fits(value, list[int]) and min(value) >= 0
    wrong_type = isinstance(value, bool) or not isinstance(value, int | str)
    return wrong_type or re.fullmatch(r"auto|-1|[1-9]\d*|(\d+,)+\d*", str(value)) is not None


NONE_OR_MORE = "a fraction from 0 to 1 or a whole number >= 0, null for all"
BOUNDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # of the trainer; Lightning does not check all of them
    "accumulate_grad_batches": (">= 1", _least(1)),
    "check_val_every_n_epoch": (">= 1 or null", _least(1)),
    "devices": ("a number >= 1, -1 or auto for all, or a list of indices", _is_devices),
    "gradient_clip_val": (">= 0 or null", _least(0)),
    "limit_predict_batches": (NONE_OR_MORE, _share(0)),
    "limit_test_batches": (NONE_OR_MORE, _share(0)),
    "limit_train_batches": ("a fraction above 0 and up to 1 or a whole number >= 1, null for all", _share(1)),
    "limit_val_batches": (NONE_OR_MORE, _share(0)),
    "log_every_n_steps": (">= 0", _least(0)),
    "max_epochs": (">= 1, or -1 for no limit", _least(1, -1)),
    "max_steps": (">= 1, or -1 for no limit", _least(1, -1)),
    "min_epochs": (">= 0 or null", _least(0)),
    "min_steps": (">= 0 or null", _least(0)),
    "num_nodes": (">= 1", _least(1)),
    "num_sanity_val_steps": (">= 0, or -1 for all", _least(0, -1)),
    "overfit_batches": ("a fraction from 0 to 1 or a whole number >= 0", _share(0)),
    "val_check_interval": ("a fraction above 0 and up to 1 or a whole number >= 1, or null", _share(1)),
}


def check(cfg: Config) -> None:
    """Raise ConfigError with every mistake found, a line each, before anything is built."""
    known = {*PARTS, *OTHER_KEYS}
    mistakes = [f"{key}: no such key{did_you_mean(key, known)}" for key in cfg if key not in known]
    for key, hint in OTHER_KEYS.items():
        if key in REQUIRED and key not in cfg:
            mistakes.append(f"{key} is missing: leave out ~{key}, or give {key}=VALUE, {_words(hint)}")
        elif not _fits(cfg.get(key), hint):
            mistakes.append(f"{key} must be {_words(hint)}, got {cfg.get(key)!r}")
    if isinstance(cfg.get("seed"), int) and not 0 <= cfg["seed"] < 2**32:
        mistakes.append(f"seed must be from 0 to 2**32 - 1, got {cfg['seed']}")
    for part in PARTS:
        node = cfg.get(part)
        if part not in OPTIONAL and not (isinstance(node, dict) and "_target_" in node):
            mistakes.append(f"{part} must be {A_CALL}, got {_shown(node)}: choose one with {part}=OPTION")
        mistakes += _mistakes(node, part, watchable(cfg))
        if part in MEMBERS:
            mistakes += _no_members(node, part)
    if isinstance(cfg.get("trainer"), dict):
        mistakes += _out_of_bounds(cfg["trainer"])
    if not mistakes and cfg["trainer"].get("limit_val_batches") == 0:
        for key in _monitors(cfg, ""):
            mistakes.append(f"{key} needs the validation that trainer.limit_val_batches=0 turns off")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def metric_name(key: str, metric: Mapping[str, Any]) -> str:
    """Return the name under which a metric of one's own is logged: its function's, or else its key."""
    return str(metric.get("function") or key).rpartition(".")[2]


def watchable(cfg: Config) -> list[str]:
    """Return the metrics that schedules and callbacks of a config can watch."""
    metrics = cfg.get("metrics")
    own = metrics.items() if isinstance(metrics, dict) else ()
    names = [metric_name(key, node) for key, node in own if isinstance(node, dict)]
    cost = ["val/cost", "val/cost_argmax"] if cfg.get("costs") else []
    return [*METRICS, *cost, *(f"val/{name}" for name in names)]


def build(node: Any, key: str, **facts: Any) -> Any:
    """Make what a node describes; `key` is its path in the config, for messages.

    Raises ConfigError, naming the key, with what the target says of its arguments.
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
    # an argument left at null where a fact is to be had is the fact's
    values |= {k: v for k, v in facts.items() if k in parameters and values.get(k) is None}
    if node.get("_partial_"):
        return functools.partial(target, **values)
    return call(target, key, **values)


def call(target: Callable[..., Any], key: str, *args: Any, **values: Any) -> Any:
    """Call a target for the config node at `key`; what it raises becomes a ConfigError that names the key."""
    try:
        return target(*args, **values)
    except ConfigError:
        raise
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        named = re.match(r"\w+( must |=)", text)  # our own messages open with the argument's name
        raise ConfigError(f"{key}.{text}" if named else f"{key}: {text}") from error


def locate(path: Any, key: str) -> Callable[..., Any]:
    """Import the callable that a `_target_` names; raise ConfigError if it is not allowed or not there."""
    if not isinstance(path, str) or not _allowed(path) or "._" in path:
        raise ConfigError(f"{key}._target_={path} is not allowed: {_own_code(path, key)}")
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
                raise ConfigError(f"{key}._target_={path}: no {name!r} in {module}{did_you_mean(name, _public(found))}")
            found = getattr(found, name)
        break
    of_a_class = "." in getattr(found, "__qualname__", "")  # a method could do anything with what it is given
    if not callable(found) or of_a_class or not _allowed(str(getattr(found, "__module__", ""))):  # or what it imported
        raise ConfigError(f"{key}._target_={path} is no class or function of its own module: {_own_code(path, key)}")
    return found


def _own_code(path: Any, key: str) -> str:
    """Say what a `_target_` may name, and how code of one's own is given."""
    roots = dict.fromkeys(prefix.partition(".")[0] for prefix in ALLOWED)
    allowed = f"it must be a public class or function of {', '.join(roots)}"
    part = key.partition(".")[0]
    if part not in ("model", "loss", "callbacks", "metrics"):
        return allowed
    function = f"{part}.custom.function" if part in ("callbacks", "metrics") else f"{part}.function"
    plus = "+" if part == "callbacks" else ""
    return f"{allowed}; for code of your own: {plus}{part}=custom {function}={path}"


def arguments(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return a target's named arguments, and whether it takes others too.

    A class whose constructor hands **options on has those of the class it inherits from as well.
    """
    constructors: Sequence[Callable[..., Any]] = [target]
    if isinstance(target, type):
        constructors = [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c) and c is not object]
    found: dict[str, inspect.Parameter] = {}
    for constructor in constructors:
        more = False
        for name, parameter in inspect.signature(constructor).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                more = True
            elif name != "self" and parameter.kind is not parameter.VAR_POSITIONAL:
                found.setdefault(name, parameter.replace(annotation=_hints(constructor).get(name, Any)))
        if not more:
            return found, False
    return found, bool(constructors)


def _mistakes(node: Any, key: str, metrics: Sequence[str]) -> Iterator[str]:
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _mistakes(item, f"{key}[{i}]", metrics)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == "monitor" and value is not None and value not in metrics:
            yield f"{key}.monitor must be one of {', '.join(metrics)}, got {value!r}"
        if value == "???":
            yield f"{key}.{name} has no value yet: give {key}.{name}=VALUE"
        yield from _mistakes(value, f"{key}.{name}", metrics)
    if "_target_" not in node:
        return
    try:
        target = locate(node["_target_"], key)
    except ConfigError as error:
        yield str(error)
        return
    parameters, more = arguments(target)
    known = {*parameters} - FACTS
    for name, value in node.items():
        if name in SPECIAL or value == "???":
            continue
        if name not in parameters:
            if not more:
                yield f"{key}.{name}: {node['_target_']} has no such argument{did_you_mean(name, known)}"
        elif not _fits(value, parameters[name].annotation):
            yield f"{key}.{name} must be {_words(parameters[name].annotation)}, got {value!r}"
    if not node.get("_partial_"):
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in node and name not in FACTS:
                yield f"{key}.{name} is missing: {node['_target_']} needs it"


def _no_members(node: Any, part: str) -> Iterator[str]:
    """The values among callbacks, loggers or metrics that are none."""
    remedy = f"choose one with {'' if part == 'metrics' else '+'}{part}=OPTION"
    if not isinstance(node, dict | None):
        yield f"{part} must be a mapping, got {node!r}: {remedy}"
        return
    for name, value in (node or {}).items():
        if value is None or value == "???":
            continue
        if not (isinstance(value, dict) and "_target_" in value):
            yield f"{part}.{name} must be {A_CALL}, got {_shown(value)}: {remedy}"
            continue
        try:
            target = locate(value["_target_"], f"{part}.{name}")
        except ConfigError:
            continue  # is among the mistakes already
        module, _, kind = MEMBERS[part].rpartition(".")
        if isinstance(target, type) and not issubclass(target, getattr(importlib.import_module(module), kind)):
            yield f"{part}.{name}._target_={value['_target_']} must be a {kind}, which it is not: {remedy}"


def _shown(value: Any) -> str:
    return "one without" if isinstance(value, dict) else repr(value)


def _out_of_bounds(trainer: Config) -> Iterator[str]:
    for name, (bounds, is_within) in BOUNDS.items():
        value = trainer.get(name)
        if value is not None and value != "???" and not is_within(value):
            yield f"trainer.{name} must be {bounds}, got {value!r}"
    if re.search("spawn|fork|notebook", str(strategy := trainer.get("strategy"))):
        yield (
            f"trainer.strategy must not be {strategy!r}: spawned and forked ranks train copies of the model, whose "
            f"results this process does not see; write trainer.strategy=ddp"
        )


def _monitors(node: Any, prefix: str) -> Iterator[str]:
    """The keys of all that watch a validation metric."""
    for name, value in node.items() if isinstance(node, dict) else ():
        if name == "monitor" and str(value).startswith("val/"):
            yield f"{prefix}{name}={value}"
        yield from _monitors(value, f"{prefix}{name}.")


def _allowed(path: str) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}.") for prefix in ALLOWED)


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name known to type checkers alone
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a config value can be meant for an argument of this type; what cannot be told from it passes."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    kind = origin or hint
    if kind is Any:
        return True
    if kind is types.NoneType or kind is None:
        return value is None or value == {}  # an option file with nothing in it
    if not isinstance(kind, type) or kind is object:
        return True
    if isinstance(value, dict) and "_target_" in value:
        return True  # becomes an object; its own class checks it
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    if issubclass(kind, Mapping):
        return isinstance(value, dict)
    if kind is tuple or issubclass(list, kind):
        items = [hint for hint in typing.get_args(hint) if hint is not ...]
        if not isinstance(value, list):
            return False
        if kind is tuple and len(items) > 1:  # tuple[float, float]
            return len(value) == len(items) and all(map(_fits, value, items))
        return not items or all(_fits(item, items[0]) for item in value)
    if hasattr(kind, "__fspath__"):
        return isinstance(value, str)
    return isinstance(value, kind)


def _words(hint: Any) -> str:
    """A type in words for a person: `int or null`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        plain = [option for option in inner if not isinstance(option, type) or option.__module__ == "builtins"]
        options = dict.fromkeys(_words(option) for option in plain or inner)
        return " or ".join(sorted(options, key=lambda words: words == "null"))
    if origin is typing.Literal:
        return "one of " + ", ".join(dict.fromkeys(str(option) for option in inner))
    kind = origin or hint
    if kind is types.NoneType:
        return "null"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if kind in names:
        return names[kind]
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return f"a list of {_words(inner[0]).removeprefix('a ')}s" if inner else "a list"
    return getattr(kind, "__name__", str(kind))
