"""From a config to objects: `check` finds a config's mistakes, `build` makes what it describes. Imports no torch."""

from lossfit.config.mistakes import PARTS, check, logged, metric_name, watchable
from lossfit.config.nodes import FACTS, Config, arguments, build, call, locate

__all__ = [
    "FACTS",
    "PARTS",
    "Config",
    "arguments",
    "build",
    "call",
    "check",
    "locate",
    "logged",
    "metric_name",
    "watchable",
]
