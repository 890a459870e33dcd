"""`check`: every mistake of a config, a line each, before anything is built or a run folder is made."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from lossfit import option_files
from lossfit.config import trainer_bounds
from lossfit.config.annotations import fits, type_in_words
from lossfit.config.monitors import WATCHING, monitors, task_of, with_monitors
from lossfit.config.nodes import FACTS, MISSING, SPECIAL, Config, arguments, locate
from lossfit.errors import ConfigError, did_you_mean
from lossfit.ranges import problem
from lossfit.tasks import metric_names

PARTS = ("data", "model", "loss", "optimizer", "scheduler", "metrics", "callbacks", "logger", "trainer")
OPTIONAL = ("metrics", "callbacks", "logger")  # absent where none is chosen
OTHER_KEYS = {
    "seed": int | None,
    "test": bool,
    "compile": bool,
    "tta": Literal["mirror", "crops"] | None,
    "costs": dict[str, Any] | None,
    "init_from": str | None,
    "choices": dict[str, Any] | None,
}
REQUIRED = ("seed", "test", "compile")  # of OTHER_KEYS
MEMBERS = {  # what each option of these parts must be a subclass of
    "metrics": "torchmetrics.Metric",
    "callbacks": "lightning.pytorch.callbacks.Callback",
    "logger": "lightning.pytorch.loggers.Logger",
}
A_CALL = "a mapping with a _target_"


def check(cfg: Config) -> None:
    """Raise ConfigError with every mistake, a line each, before anything is built."""
    mistakes = [*_in_other_keys(cfg)]
    try:
        cfg = with_monitors(cfg, metric_names.headline(task_of(cfg)))
    except ConfigError as error:
        mistakes.append(str(error))
        cfg = with_monitors(cfg, metric_names.headline())
    metrics = watchable(cfg)
    for part in PARTS:
        node = cfg.get(part)
        if part not in OPTIONAL and not (isinstance(node, dict) and "_target_" in node):
            mistakes.append(f"{part} must be {A_CALL}, got {_shown(node)}: choose one with {part}=OPTION")
        mistakes += _in_node(node, part, metrics)
        if part in MEMBERS:
            mistakes += _in_members(node, part)
    if isinstance(cfg.get("trainer"), dict):
        mistakes += trainer_bounds.mistakes(cfg["trainer"])
    if not mistakes and cfg["trainer"].get("limit_val_batches") == 0:
        for part in WATCHING:
            for key, metric in monitors(cfg.get(part), part):
                if str(metric).startswith("val/"):
                    mistakes.append(f"{key}={metric} needs the validation that trainer.limit_val_batches=0 turns off")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def metric_name(key: str, metric: Mapping[str, Any]) -> str:
    """Return the name under which a metric of the user's own is logged: its function's, or else its key."""
    return str(metric.get("function") or key).rpartition(".")[2]


def own_metrics(cfg: Config) -> list[str]:
    """Return the names of the user's own metrics in a config."""
    metrics = cfg.get("metrics")
    own = metrics.items() if isinstance(metrics, dict) else ()
    return [metric_name(key, node) for key, node in own if isinstance(node, dict)]


def watchable(cfg: Config) -> list[str]:
    """Return the metrics that schedules and callbacks of a config can watch, as far as the config says it.

    Those of two classes are among them: how many classes there are, the data say.
    """
    needs: list[metric_names.Needs] = ["two classes", "costs"] if cfg.get("costs") else ["two classes"]
    try:
        task = task_of(cfg)
    except ConfigError:
        task = metric_names.CLASSIFICATION
    return metric_names.keys(task, ("train", "val"), needs, own_metrics(cfg))


def _in_other_keys(cfg: Config) -> Iterator[str]:
    """Yield the mistakes at the top of a config, outside of its parts."""
    known = {*PARTS, *OTHER_KEYS}
    for key in cfg:
        if key not in known:
            yield option_files.why_no_key(str(key)) or f"{key}: no such key{did_you_mean(key, known)}"
    for key, kind in OTHER_KEYS.items():
        if key in REQUIRED and key not in cfg:
            yield f"{key} is missing: leave out ~{key}, or give {key}=VALUE, {type_in_words(kind)}"
        elif not fits(cfg.get(key), kind):
            yield f"{key} must be {type_in_words(kind)}, got {cfg.get(key)!r}"
    if isinstance(cfg.get("seed"), int) and not 0 <= cfg["seed"] < 2**32:
        yield f"seed must be from 0 to 2**32 - 1, got {cfg['seed']}"


def _in_node(node: Any, key: str, metrics: Sequence[str]) -> Iterator[str]:
    """Yield the mistakes in a node and those below it. metrics: what a `monitor` may be."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _in_node(item, f"{key}[{i}]", metrics)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == "monitor" and value is not None and value not in metrics:
            yield f"{key}.monitor must be one of {', '.join(metrics)}, got {value!r}"
        if name == "monitor" and value in metrics and node.get("mode", "") is None:
            yield f"{key}.mode must be min or max: the name {value} does not say which way is better"
        if value == MISSING:
            yield f"{key}.{name} has no value yet: give {key}.{name}=VALUE"
        yield from _in_node(value, f"{key}.{name}", metrics)
    if "_target_" in node:
        yield from _in_call(node, key)


def _in_call(node: Config, key: str) -> Iterator[str]:
    """Yield the mistakes of a node with a `_target_`, whose signature says the names, types and ranges of its keys."""
    try:
        target = locate(node["_target_"], key)
    except ConfigError as error:
        yield str(error)
        return
    parameters, takes_kwargs = arguments(target)
    for name, value in node.items():
        if name in SPECIAL or value == MISSING:
            continue
        if name not in parameters:
            if not takes_kwargs:
                meant = did_you_mean(name, parameters.keys() - FACTS) + option_files.options_with(key, {name})
                yield f"{key}.{name}: {node['_target_']} has no such argument{meant}"
        elif name == "mode" and value is None and "monitor" in node:
            continue  # `_in_node` has looked at it
        elif not fits(value, annotation := trainer_bounds.with_auto(f"{key}.{name}", parameters[name].annotation)):
            others = option_files.options_with(f"{key}.{name}", value.keys()) if isinstance(value, dict) else ""
            yield f"{key}.{name} must be {type_in_words(annotation)}, got {value!r}{others}"
        elif wrong := problem(f"{key}.{name}", value, annotation):
            yield wrong
    if not node.get("_partial_"):
        for name, parameter in parameters.items():
            if parameter.default is parameter.empty and name not in node and name not in FACTS:
                yield f"{key}.{name} is missing: {node['_target_']} needs it"


def _in_members(node: Any, part: str) -> Iterator[str]:
    """Yield the options of callbacks, loggers or metrics that are not one."""
    remedy = f"choose one with {'' if part == 'metrics' else '+'}{part}=OPTION"
    if not isinstance(node, dict | None):
        yield f"{part} must be a mapping, got {node!r}: {remedy}"
        return
    for name, value in (node or {}).items():
        if value is None or value == MISSING:
            continue
        if not (isinstance(value, dict) and "_target_" in value):
            yield f"{part}.{name} must be {A_CALL}, got {_shown(value)}: {remedy}"
            continue
        try:
            target = locate(value["_target_"], f"{part}.{name}")
        except ConfigError:
            continue  # `_in_call` has reported it
        module, _, kind = MEMBERS[part].rpartition(".")
        if isinstance(target, type) and not issubclass(target, getattr(importlib.import_module(module), kind)):
            yield f"{part}.{name}._target_={value['_target_']} must be a {kind}, which it is not: {remedy}"


def _shown(value: Any) -> str:
    return "a mapping without" if isinstance(value, dict) else repr(value)
