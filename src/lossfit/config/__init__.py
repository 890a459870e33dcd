"""From a config to objects: `check` finds a config's mistakes, `build` makes what it describes. Imports no torch."""

from lossfit.config.mistakes import PARTS, check, metric_name, own_metrics, watchable
from lossfit.config.monitors import check_monitors, task_of, with_monitors
from lossfit.config.nodes import FACTS, Config, arguments, build, call, locate

__all__ = [
    "FACTS",
    "PARTS",
    "Config",
    "arguments",
    "build",
    "call",
    "check",
    "check_monitors",
    "locate",
    "metric_name",
    "own_metrics",
    "task_of",
    "watchable",
    "with_monitors",
]
