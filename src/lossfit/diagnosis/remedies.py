"""What to type against a finding, fitted to the run's config and scaled by the evidence.

A remedy is a list of words to type together: overrides to add to those of the run, or a command, which begins with
`python`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossfit import option_files
from lossfit.diagnosis.changes import (
    LONGER,
    Config,
    Remedy,
    clip,
    early_stopping,
    exchanged,
    fewer_layers,
    less_dropout,
    more_augmentation,
    more_dropout,
    more_epochs,
    rounded,
    scaled_lr,
    schedule,
    usual_lr,
    usual_schedule,
    warm_up,
)
from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History
from lossfit.diagnosis.rules import series

RUN = "RUN"  # stands for the run's folder
CALIBRATE = ["python", "scripts/evaluate.py", RUN, "--calibrate"]
USUAL = 5e-3  # the update of a layer over its weights, early in a training that works
USELESS = 10.0  # times the weights: an update that is larger does not say how much too large the learning rate is
ENOUGH = 0.1  # the path of a training that learns, as of rules.lr_too_small
MOST = 2  # alternatives


def remedies(finding: Finding, history: History, config: Config) -> list[Remedy]:
    """Return up to two alternatives, each a list of overrides that belong together; none if no key would help."""
    found = REMEDIES.get(finding.name, lambda *_: [])(finding.evidence, history, config)
    return [remedy for remedy in found if remedy][:MOST]


def with_folder(remedies: Sequence[Remedy], folder: Path) -> list[Remedy]:
    """Return remedies with a run's folder in place of RUN."""
    return [[str(folder) if word == RUN else word for word in remedy] for remedy in remedies]


def _fewer_steps_too_large(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against steps of a wrong size: a smaller learning rate, or a larger one; clipped gradients, or a schedule.

    None where the loss is not finite although it was low just before: the steps were not too large.
    """
    if "what" in evidence and _was_calm(history):
        return []
    if evidence.get("small"):
        return [scaled_lr(config, 10.0), *_other_model(evidence, history, config)]
    gentler = clip(evidence, config) if evidence.get("grad_norm") else schedule(config)
    return [_smaller_lr(evidence, history, config), gentler or warm_up(config)]


def _smaller_lr(evidence: Mapping[str, Any], history: History, config: Config) -> Remedy:
    typical = series.medians(series.update_ratios(history), 1)[:50]
    typical = typical[np.isfinite(typical) & (typical > 0)]
    largest = evidence.get("ratio") or (float(np.percentile(typical, 90)) if len(typical) else 10 * USUAL)
    if (not len(typical) or largest > USELESS) and (usual := usual_lr(config)):
        return usual
    return scaled_lr(config, min(0.3, max(1e-3, USUAL / largest)))


def _was_calm(history: History) -> bool:
    """Whether the loss was usual in the last steps that are recorded, which are the last ones of the run."""
    highest, start = history.steps["loss_max"], series.starting_loss(history)
    recent = (history.facts.get("every_n_steps") or 1) <= 10
    return bool(recent and len(highest) and abs(highest[-1]) < 2 * abs(start))


def _larger_lr(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    if evidence.get("ended"):
        return [usual_schedule(config) or schedule(config), more_epochs(config, history)]
    ratio = evidence.get("ratio") or USUAL / 10
    path = (evidence.get("path") or 0.0) / max(series.progress(history), 1e-9)  # of the whole training
    longer = more_epochs(config, history) if LONGER * path >= ENOUGH else []
    return [scaled_lr(config, min(1e4, max(3.0, USUAL / ratio))), longer]


def _against_overfitting(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    regression = history.facts.get("task") == "regression"  # dropout changes the scale of its outputs
    return [
        [*more_augmentation(history, config), *([] if regression else more_dropout(config))],
        early_stopping(config),
    ]


def _against_plateau(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against a loss that stays high: less dropout, another learning rate or loss.

    No learning rate if nothing was learned from steps of the usual size: then the images or the labels are wrong.
    """
    ratio = evidence.get("ratio") or 0
    if evidence.get("stuck") and 0.1 * USUAL <= ratio <= 4 * USUAL:
        return [less_dropout(config), exchanged(config, "loss", "cross_entropy", history)]
    lr = scaled_lr(config, 0.1 if ratio > USUAL else 3.0)
    other = exchanged(config, "loss", "cross_entropy", history) or schedule(config) or more_epochs(config, history)
    return [less_dropout(config), lr, other]


def _other_model(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against gradients that vanish or explode: fewer layers, another activation, a residual network, batch norms."""
    saturating = config["model"].get("activation") in ("sigmoid", "tanh")
    residual = exchanged(config, "model", "resnet")
    return [
        [*(["model.activation=relu"] if saturating else []), *fewer_layers(config)],
        residual,
        exchanged(config, "model", "cnn") if residual else [],
    ]


def _against_explosion(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    return [*_other_model(evidence, history, config), clip(evidence, config)]


def _against_wrong_start(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    scale = config["model"].get("cosine_scale")
    smaller = [f"model.cosine_scale={rounded(scale / 3):g}"] if isinstance(scale, int | float) else []
    return [smaller, *_other_model(evidence, history, config)]


def _against_dead_units(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against dead units: a smaller learning rate, or another model if they were dead before the first step."""
    typical = series.medians(series.update_ratios(history), 1)
    pushed = bool((np.nan_to_num(typical) > 4 * USUAL).any())
    models = _other_model(evidence, history, config)
    if not history.steps["grad"][:1, series.matrices(history)].any():  # no gradient passes them
        return models
    return [_smaller_lr({}, history, config), *models] if pushed else [*models, scaled_lr(config, 0.3)]


def _against_collapse(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    if evidence.get("absent"):
        return []
    if evidence.get("rare"):
        balanced = (exchanged(config, "loss", name, history) for name in ("logit_adjusted", "class_balanced"))
        return [remedy for remedy in balanced if remedy]
    most = 2 * len(evidence.get("classes", ())) > history.evaluations["recall"].shape[-1]
    return [exchanged(config, "loss", "cross_entropy", history), [] if most else more_epochs(config, history)]


def _against_unused(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    return [["model.freeze=null"]] if config["model"].get("freeze") else []


def _against_noise(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against wrong labels: a robust loss, if the training is so long that it learns them, which raises val/loss.

    Before that a robust loss only learns more slowly.
    """
    if history.facts.get("task") == "regression":
        chosen = option_files.chosen(config).get("loss")
        return [exchanged(config, "loss", name, history) for name in ("huber", "mae") if chosen != "mae"]
    losses = history.evaluations["val_loss"]
    if not losses[-1] > 1.05 * np.nanmin(losses):
        return []
    robust = exchanged(config, "loss", "gce", history)
    if robust and str(config["optimizer"].get("_target_")).endswith(".SGD") and not config["optimizer"].get("momentum"):
        robust += scaled_lr(config, 5.0)  # its gradients are smaller
    return [
        robust,
        exchanged(config, "loss", "label_smoothing", history),
        exchanged(config, "loss", "bi_tempered", history),
    ]


def _against_miscalibration(evidence: Mapping[str, Any], history: History, config: Config) -> list[Remedy]:
    """Against probabilities that do not hold: a temperature, if there are mistakes to fit it to, or another loss."""
    accuracy = evidence.get("accuracy", 0)
    option = "label_smoothing" if evidence.get("confidence", 0) > accuracy else "cross_entropy"
    mistakes = (1 - accuracy) * (history.facts.get("val_samples") or 0)
    classes = max(1, history.evaluations["recall"].shape[-1])
    fitted = mistakes >= 10 and accuracy > 1.5 / classes
    return [CALIBRATE if fitted else [], exchanged(config, "loss", option, history)]


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
