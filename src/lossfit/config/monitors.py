"""The task of a config, and the metrics that its callbacks and schedule watch: `monitor` and `mode` of a node.

Where a node has `monitor: null`, the task's headline metric is meant; where it has `mode: null`, the direction of the
metric that it watches, which stays null if the metric's name does not say it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lossfit.config.nodes import SPECIAL, Config, call, locate
from lossfit.errors import ConfigError
from lossfit.tasks import metric_names

WATCHING = ("callbacks", "scheduler")  # the parts of a config that watch metrics


def task_of(cfg: Config) -> str:
    """Return the name of the task of a config's data; raise ConfigError if its data cannot say it."""
    node = cfg.get("data")
    if not isinstance(node, dict) or "_target_" not in node:
        return metric_names.CLASSIFICATION
    task_name = getattr(locate(node["_target_"], "data"), "task_name", None)
    if task_name is None:
        return metric_names.CLASSIFICATION
    name: str = call(task_name, "data", **{key: value for key, value in node.items() if key not in SPECIAL})
    return name


def with_monitors(cfg: Config, headline: str) -> Config:
    """Return a config with a metric for each `monitor: null`, and a direction for each `mode: null` beside it."""
    return cfg | {part: _filled(cfg[part], headline) for part in WATCHING if part in cfg}


def _filled(node: Any, headline: str) -> Any:
    if not isinstance(node, dict):
        return node
    node = {name: _filled(value, headline) for name, value in node.items()}
    if "monitor" in node:
        metric = node["monitor"] = headline if node["monitor"] is None else node["monitor"]
        if node.get("mode", "") is None:
            node["mode"] = metric_names.direction_of(str(metric))
    return node


def monitors(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yield the key and the value of each `monitor` in a node."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if name == "monitor" and value is not None:
            yield f"{key}.monitor", value
        yield from monitors(value, f"{key}.{name}")


def check_monitors(cfg: Config, known: Sequence[str]) -> None:
    """Raise ConfigError for a callback or schedule that watches a metric that the run does not measure."""
    for part in WATCHING:
        for key, metric in monitors(cfg.get(part), part):
            if metric not in known:
                needs = metric_names.needs_of(str(metric))
                why = f", which is measured with {needs} only" if needs else ""
                raise ConfigError(f"{key} must be one of {', '.join(known)}, got {metric!r}{why}")
