"""Overrides that change a run's config: each function returns those to type, or none where they do not fit.

An override names only keys that the config has. Where a group's option is exchanged, the keys of the old one that were
set must be keys of the new one too, since they are still typed.
"""

from collections.abc import Mapping
from math import ceil, isfinite
from typing import Any

from lossfit import option_files
from lossfit.diagnosis.history import History

Config = Mapping[str, Any]
Remedy = list[str]

LONGER = 3  # times: an offer of more epochs
LEAST_STEPS = 200  # of a training that can be judged: an offer of more epochs has so many
EARLY_STOPPING = (
    "++callbacks.early_stopping={_target_:lightning.pytorch.callbacks.EarlyStopping,"
    "monitor:val/loss,mode:min,patience:5}"
)
AUGMENT = "++data.augment={_target_:lossfit.data.Augment,flip:0.0,translate:2,erase:0}"


def rounded(value: float, digits: int = 1) -> float:
    """Return a number with one or two significant digits, to be typed."""
    return float(f"{value:.{digits}g}") if value and isfinite(value) else value


def scaled_lr(config: Config, factor: float) -> Remedy:
    """Return the override of the learning rate; none for an optimizer without, or that finds its own step sizes."""
    optimizer = config["optimizer"]
    lr = optimizer.get("lr")
    if not isinstance(lr, int | float) or not lr > 0 or _finds_step_sizes(config):
        return []
    return [f"optimizer.lr={rounded(lr * factor):g}"]


def usual_lr(config: Config) -> Remedy:
    """Return the override that takes the learning rate of the optimizer's option; none if the run's is not larger."""
    usual = _option("optimizer", str(option_files.chosen(config).get("optimizer"))).get("lr")
    lr = config["optimizer"].get("lr")
    known = isinstance(usual, int | float) and isinstance(lr, int | float)
    return [f"optimizer.lr={usual:g}"] if known and lr > usual and not _finds_step_sizes(config) else []


def _finds_step_sizes(config: Config) -> bool:
    return bool({"line_search_fn", "step_sizes"} & config["optimizer"].keys())


def more_epochs(config: Config, history: History) -> Remedy:
    """Return the override that trains LONGER times as long, and LEAST_STEPS at least."""
    epochs, steps = config["trainer"].get("max_epochs"), history.facts.get("total_steps") or LEAST_STEPS
    if not isinstance(epochs, int) or epochs < 1:
        return []
    return [f"trainer.max_epochs={max(LONGER * epochs, ceil(epochs * LEAST_STEPS / steps))}"]


def warm_up(config: Config) -> Remedy:
    """Return the override for a longer warm-up, where the schedule has one."""
    scheduler = config["scheduler"]
    if _finds_step_sizes(config):
        return []
    if "warmup" in scheduler and scheduler["warmup"] < 0.1:
        return ["scheduler.warmup=0.1"]
    return []


def clip(evidence: Mapping[str, Any], config: Config) -> Remedy:
    """Return the override that clips gradients to the norm that they have while all is well."""
    if _finds_step_sizes(config) or config["trainer"].get("gradient_clip_val"):
        return []
    norm = evidence.get("grad_norm") or 1.0
    return [f"trainer.gradient_clip_val={rounded(norm) if 0.1 <= norm <= 10 else 1.0:g}"]


def more_augmentation(history: History, config: Config) -> Remedy:
    """Return the override that turns augmentation on, or makes it stronger; none for values, which it may change."""
    data = config["data"]
    if history.facts.get("task") == "regression" or "augment" not in data:
        return []
    augment = data["augment"]
    if augment is None:
        return [AUGMENT]  # set to null where it wins over the choice of an option
    if not augment:
        return [f"data/augment={_usual_augmentation(config)}"]
    if "translate" in augment:
        return [f"data.augment.translate={min(4, augment['translate'] + 2)}"] if augment["translate"] < 4 else []
    if augment.get("erase") == 0:
        return ["data.augment.erase=0.25"]
    return []


def _usual_augmentation(config: Config) -> str:
    option = option_files.chosen(config).get("data")
    return {"fashion_mnist": "small", "sample": "small", "folder": "photo"}.get(str(option), "shift")


def more_dropout(config: Config) -> Remedy:
    """Return the override for more dropout, where the model has it."""
    for key in ("dropout", "drop_rate"):
        now = config["model"].get(key)
        if isinstance(now, int | float) and now < 0.5:
            return [f"model.{key}={rounded(min(0.5, now + 0.3)):g}"]
    return []


def less_dropout(config: Config) -> Remedy:
    """Return the override for usual dropout in place of one that removes most of what the layers say."""
    for key in ("dropout", "drop_rate"):
        now = config["model"].get(key)
        if isinstance(now, int | float) and now > 0.5:
            return [f"model.{key}=0.2"]
    return []


def early_stopping(config: Config) -> Remedy:
    """Return the override that adds the callback; in full if `callbacks` was typed: then +callbacks fails."""
    callbacks = config.get("callbacks") or {}
    if callbacks.get("early_stopping"):
        return []
    defaults = (entry for entry in _option(".", "config")["defaults"] if "callbacks" in entry)
    usual = {*next(defaults)["callbacks"], "last_checkpoint"}
    added = "callbacks" in option_files.chosen(config) or callbacks.keys() != usual
    return [EARLY_STOPPING] if added else ["+callbacks=early_stopping"]


def schedule(config: Config) -> Remedy:
    """Return the override for a schedule in place of none, where the optimizer uses one."""
    averages = "schedule_free" in str(config["optimizer"].get("_target_"))
    constant = str(config["scheduler"].get("_target_")).endswith(".none")
    if averages or _finds_step_sizes(config) or not constant:
        return []
    return exchanged(config, "scheduler", "one_cycle")


def usual_schedule(config: Config) -> Remedy:
    """Return the overrides that set the keys of the schedule back to those of its option."""
    usual = _option("scheduler", str(option_files.chosen(config).get("scheduler")))
    return [
        f"scheduler.{key}={str(value).replace(' ', '')}"
        for key, value in usual.items()
        if key in config["scheduler"] and config["scheduler"][key] != value and isinstance(value, int | float | list)
    ]


def fewer_layers(config: Config) -> Remedy:
    """Return the override that leaves a quarter of the layers, of a model that takes their number or their widths."""
    hidden = config["model"].get("hidden")
    if isinstance(hidden, list) and len(hidden) > 4:
        return [f"model.hidden={str(hidden[: max(2, len(hidden) // 4)]).replace(' ', '')}"]
    options = config["model"].get("options")
    for name, value in options.items() if isinstance(options, dict) else ():
        if name in ("depth", "layers", "num_layers", "n_layers") and isinstance(value, int) and value > 4:
            return [f"++model.options.{name}={max(2, value // 4)}"]
    return []


def exchanged(config: Config, group: str, option: str, history: History | None = None) -> Remedy:
    """Return the override that takes another option of a group; none if it is chosen, or keys that are set do not fit.

    history: of the run, to exchange its loss, which must fit the task, by one that is for classes.
    """
    chosen = option_files.chosen(config).get(group)
    node = config.get(group) or {}
    if chosen == option or not chosen:
        return []
    now, other = _option(group, str(chosen)), _option(group, option)
    set_keys = {key for key, value in node.items() if key not in now or now[key] != value}
    if "_target_" in set_keys or not set_keys <= other.keys():
        return []
    if group == "loss" and history is not None:
        if (history.facts.get("task") == "classification") != (option not in ("huber", "mae")):
            return []
        if all(node.get(key) == value for key, value in other.items()):
            return []
    return [f"{group}={option}"]


def _option(group: str, name: str) -> dict[str, Any]:
    """Return the keys of an option file."""
    return {key: _number(value) for key, value in option_files.read(group, name).items()}


def _number(value: Any) -> Any:
    """Return 1e-3 as a number, which YAML 1.1 reads as a text and Hydra does not."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
