"""What to type against a finding: overrides that fit the run's own config, and are scaled by the evidence.

A remedy is a list of words to type together: overrides to add to those of the run, or a command, which begins with
`python`. An override names only keys that the config has. Where a group's option is exchanged, the keys of the old one
that were set must be keys of the new one too, since they are still typed.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import numpy as np
import yaml

from lossfit import option_files
from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History
from lossfit.diagnosis.rules import series

Config = Mapping[str, Any]
Remedy = list[str]

CALIBRATE = ["python", "scripts/evaluate.py", "RUN", "--calibrate"]
USUAL = 5e-3  # the update of a layer over its weights, early in a training that works
EARLY_STOPPING = (
    "++callbacks.early_stopping={_target_:lightning.pytorch.callbacks.EarlyStopping,"
    "monitor:val/loss,mode:min,patience:5}"
)
AUGMENT = "++data.augment={_target_:lossfit.data.Augment,flip:0.0,translate:2,erase:0}"
MOST = 2  # alternatives


def remedies(finding: Finding, history: History, config: Config) -> list[Remedy]:
    """Return up to two alternatives, each a list of overrides that belong together; none if no key would help."""
    found = REMEDIES.get(finding.name, lambda *_: [])(finding.evidence, history, config)
    return [remedy for remedy in found if remedy][:MOST]


def rounded(value: float, digits: int = 1) -> float:
    """Return a number with one or two significant digits, to be typed."""
    return float(f"{value:.{digits}g}") if value and isfinite(value) else value


def _fewer_steps_too_large(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against a learning rate that is too large: a smaller one; a warm-up, or clipped gradients."""
    return [_smaller_lr(history, config), _clip(evidence, config) or _warm_up(config)]


def _smaller_lr(history: History, config: Config) -> Remedy:
    typical = series.medians(series.update_ratios(history), 1)[:50]
    largest = float(np.nanmax(typical)) if np.isfinite(typical).any() else 0.0
    largest = largest if isfinite(largest) and largest > 0 else 10 * USUAL
    return _scaled_lr(config, min(0.3, max(1e-3, USUAL / largest)))


def _larger_lr(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    ratio = evidence.get("ratio") or USUAL / 10
    return [_scaled_lr(config, min(1e4, max(3.0, USUAL / ratio))), _more_epochs(config)]


def _scaled_lr(config: Config, factor: float) -> Remedy:
    """Return the override of the learning rate; none for an optimizer without, or that finds its own step sizes."""
    optimizer = config["optimizer"]
    lr = optimizer.get("lr")
    if not isinstance(lr, int | float) or not lr > 0 or _finds_step_sizes(config):
        return []
    return [f"optimizer.lr={rounded(lr * factor):g}"]


def _finds_step_sizes(config: Config) -> bool:
    return bool({"line_search_fn", "step_sizes"} & config["optimizer"].keys())


def _more_epochs(config: Config) -> Remedy:
    epochs = config["trainer"].get("max_epochs")
    return [f"trainer.max_epochs={3 * epochs}"] if isinstance(epochs, int) and epochs > 0 else []


def _warm_up(config: Config) -> Remedy:
    scheduler = config["scheduler"]
    if _finds_step_sizes(config):
        return []
    if "warmup" in scheduler and scheduler["warmup"] < 0.1:
        return ["scheduler.warmup=0.1"]
    return []


def _clip(evidence: Mapping[str, Any], config: Config) -> Remedy:
    """Return the override that clips gradients to the norm that they have while all is well."""
    if _finds_step_sizes(config) or config["trainer"].get("gradient_clip_val"):
        return []
    norm = evidence.get("grad_norm") or 1.0
    return [f"trainer.gradient_clip_val={rounded(norm) if 0.1 <= norm <= 10 else 1.0:g}"]


def _against_overfitting(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    return [[*_more_augmentation(history, config), *_more_dropout(config)], _early_stopping(config)]


def _more_augmentation(history: History, config: Config) -> Remedy:
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


def _more_dropout(config: Config) -> Remedy:
    for key in ("dropout", "drop_rate"):
        now = config["model"].get(key)
        if isinstance(now, int | float) and now < 0.5:
            return [f"model.{key}={rounded(min(0.5, now + 0.3)):g}"]
    return []


def _early_stopping(config: Config) -> Remedy:
    """Return the override that adds the callback; in full where +callbacks was typed, which cannot be typed twice."""
    callbacks = config.get("callbacks") or {}
    if callbacks.get("early_stopping"):
        return []
    defaults = (entry for entry in _option(".", "config")["defaults"] if "callbacks" in entry)
    shipped = {*next(defaults)["callbacks"], "last_checkpoint"}
    added = "callbacks" in option_files.chosen(config) or callbacks.keys() - shipped
    return [EARLY_STOPPING] if added or "early_stopping" in callbacks else ["+callbacks=early_stopping"]


def _against_plateau(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    large = (evidence.get("ratio") or 0) > USUAL
    lr = _scaled_lr(config, 0.1 if large else 3.0)
    return [lr, _exchanged(config, "loss", "cross_entropy", history) or _schedule(config) or _more_epochs(config)]


def _schedule(config: Config) -> Remedy:
    averages = "schedule_free" in str(config["optimizer"].get("_target_"))
    constant = str(config["scheduler"].get("_target_")).endswith(".none")
    if averages or _finds_step_sizes(config) or not constant:
        return []
    return _exchanged(config, "scheduler", "one_cycle")


def _other_model(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against gradients that do not arrive: a residual network, one with batch norms, or fewer layers."""
    return [
        _exchanged(config, "model", "resnet") or _fewer_layers(config),
        _exchanged(config, "model", "cnn") if _exchanged(config, "model", "resnet") else [],
    ]


def _fewer_layers(config: Config) -> Remedy:
    """Return the override of a depth that the user's own model takes."""
    options = config["model"].get("options")
    for name, value in options.items() if isinstance(options, dict) else ():
        if name in ("depth", "layers", "num_layers", "n_layers") and isinstance(value, int) and value > 4:
            return [f"++model.options.{name}={max(2, value // 4)}"]
    return []


def _against_explosion(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    return [_clip(evidence, config), *_other_model(evidence, history, config)]


def _against_wrong_start(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    scale = config["model"].get("cosine_scale")
    smaller = [f"model.cosine_scale={rounded(scale / 3):g}"] if isinstance(scale, int | float) else []
    return [smaller, *_other_model(evidence, history, config), _clip(evidence, config)]


def _against_dead_units(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    typical = series.medians(series.update_ratios(history), 1)
    pushed = bool((np.nan_to_num(typical) > 4 * USUAL).any())
    models = _other_model(evidence, history, config)
    return [_smaller_lr(history, config), *models] if pushed else [*models, _scaled_lr(config, 0.3)]


def _against_collapse(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    if evidence.get("absent"):
        return []
    if evidence.get("rare"):
        balanced = (_exchanged(config, "loss", name, history) for name in ("logit_adjusted", "class_balanced"))
        return [remedy for remedy in balanced if remedy]
    return [_exchanged(config, "loss", "cross_entropy", history), _more_epochs(config)]


def _against_unused(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    return [["model.freeze=null"]] if config["model"].get("freeze") else []


def _against_noise(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    if history.facts.get("task") == "regression":
        return [_exchanged(config, "loss", name, history) for name in ("huber", "mae")]
    robust = _exchanged(config, "loss", "gce", history)
    if robust and str(config["optimizer"].get("_target_")).endswith(".SGD") and not config["optimizer"].get("momentum"):
        robust += _scaled_lr(config, 5.0)  # its gradients are smaller
    return [
        robust,
        _exchanged(config, "loss", "label_smoothing", history),
        _exchanged(config, "loss", "bi_tempered", history),
    ]


def _against_miscalibration(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    sure = evidence.get("confidence", 0) > evidence.get("accuracy", 0)
    option = "label_smoothing" if sure else "cross_entropy"
    return [CALIBRATE, _exchanged(config, "loss", option, history)]


def _exchanged(config: Config, group: str, option: str, history: History | None = None) -> Remedy:
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
    file = option_files.CONF / group / f"{name}.yaml"
    read = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {key: _number(value) for key, value in (read or {}).items()}


def _number(value: Any) -> Any:
    """Return 1e-3 as a number, which YAML 1.1 reads as a text and Hydra does not."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


REMEDIES: dict[str, Callable[[Mapping[str, Any], History, Config], list[Remedy]]] = {
    "wrong_start": _against_wrong_start,
    "non_finite": _fewer_steps_too_large,
    "divergence": _fewer_steps_too_large,
    "overfitting": _against_overfitting,
    "oscillation": _fewer_steps_too_large,
    "lr_too_small": _larger_lr,
    "plateau": _against_plateau,
    "vanishing_gradients": _other_model,
    "exploding_gradients": _against_explosion,
    "dead_units": _against_dead_units,
    "update_ratio": _fewer_steps_too_large,
    "class_collapse": _against_collapse,
    "unused_parameters": _against_unused,
    "label_noise": _against_noise,
    "miscalibration": _against_miscalibration,
}
