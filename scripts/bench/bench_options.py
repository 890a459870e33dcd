"""The losses and optimizers that the scripts of this folder train, and the overrides that some of them need."""

from typing import Any

import yaml

from lossfit.config import locate
from lossfit.option_files import CONF

FULL_BATCH = ("lbfgs", "rprop")  # need data.batch_size=all
NO_SCHEDULE = ["scheduler=none", "scheduler.warmup=0.05"]
NEEDED = {  # loss or optimizer -> overrides
    "forward_correction": ["loss.noise=0.0"],  # the labels are right
    "ldam": ["model.cosine_scale=30"],
    "schedule_free_adamw": NO_SCHEDULE,
    "schedule_free_sgd": NO_SCHEDULE,
}


def _options(group: str, left_out: tuple[str, ...]) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem not in left_out)


def _is_for_classes(loss: str) -> bool:
    node = yaml.safe_load((CONF / "loss" / f"{loss}.yaml").read_text(encoding="utf-8"))
    kind: Any = locate(node["_target_"], "loss")
    return "classification" in kind.tasks


LOSSES = list(filter(_is_for_classes, _options("loss", ("custom",))))
OPTIMIZERS = _options("optimizer", ("custom", *FULL_BATCH))


def needed(*options: str) -> list[str]:
    """Return the overrides that the chosen losses and optimizers need."""
    return [override for option in options for override in NEEDED.get(option, [])]
