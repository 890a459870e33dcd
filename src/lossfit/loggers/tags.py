"""Where TensorBoard shows what a run logs. Only there do metrics have other names than their keys.

The Time Series page sorts groups, the first words of tags, by name, opens the first two, and has two cards in a row on
a laptop. So the first group tells whether the run learns and generalises, and the second what it is bad at:

    curves          loss and the task's main metric, of training and validation in one card; the learning rate;
                    losses of single batches; what the diagnosis found, if it found something
    mistakes        pictures of the test
    more metrics    the other metrics of the validation
    result          one value each, for the HPARAMS tab
    training        images as the model gets them, norms of gradients and updates

A card has a line for each run that TensorBoard knows. So the curves are in two subfolders, train and val, with the same
tags in both.
"""

from collections.abc import Sequence
from typing import Any

from lossfit.tasks.metric_names import HEADLINES

TRAIN, VAL = PARTS = ("train", "val")
CURVES, MISTAKES, MORE, TRAINING = "curves", "mistakes", "more metrics", "training"
FINDINGS, RESULT = "findings", "result"  # also of the TEXT tab, where the findings come first
FINDINGS_PICTURE = f"{CURVES}/what the diagnosis found"
AUGMENTED = f"{TRAINING}/augmented images"
GRADIENT, UPDATE = f"{TRAINING}/gradient norm", f"{TRAINING}/update ratio"
MOST_LAYERS = 20  # whose norms are shown
Layout = dict[str, dict[str, list[Any]]]  # title -> chart -> kind and patterns of tags
MAIN = ("loss", *HEADLINES.values())  # the metrics of the first group
EPOCH_LR, STEP_LR = "train/lr", "train/lr_step"
SPECIAL: dict[str, tuple[str, str] | None] = {  # key -> subfolder and tag; None for what is not shown
    "epoch": None,
    "hp_metric": None,
    "train/epoch_s": None,
    EPOCH_LR: (TRAIN, f"{CURVES}/optimizer.lr"),
    STEP_LR: (TRAIN, f"{CURVES}/optimizer.lr"),
    "train/loss_step": (TRAIN, f"{CURVES}/step loss"),
}


def place(key: str) -> tuple[str, str] | None:
    """Return the subfolder, "" for the run folder, and the tag of a metric; None if it is not shown.

    Those of the test are not: a single value has no curve, and they are in the HPARAMS and the TEXT tab.
    """
    if key in SPECIAL:
        return SPECIAL[key]
    split, _, name = key.partition("/")
    if split == "test":
        return None
    if split not in PARTS or not name:
        return "", key
    group = CURVES if name in MAIN else MORE if split == VAL else TRAINING
    return split, f"{group}/{name}"


def picture(name: str) -> str:
    """Return the tag of a picture of the test; `biggest` comes first."""
    return f"{MISTAKES}/{name.replace('_', ' ')}"


def curves(metrics: Sequence[str]) -> Layout:
    """Return the charts of the CUSTOM SCALARS tab for a run that measures these metrics, such as val/acc."""
    names = [name for name in MAIN if not metrics or f"{VAL}/{name}" in metrics]
    charts = {name: ["Multiline", [f"{CURVES}/{name}$"]] for name in names}
    charts["learning rate"] = ["Multiline", [f"{CURVES}/optimizer"]]
    return {"Does it learn, and does it generalise?": charts}


def layers() -> Layout:
    """Return the charts of the CUSTOM SCALARS tab for norms of layers, all layers in one chart."""
    return {
        "Are the steps sound?": {
            "gradient norm of each layer": ["Multiline", [f"{GRADIENT}/"]],
            "update ratio of each layer": ["Multiline", [f"{UPDATE}/"]],
        }
    }


def thinned(names: list[str]) -> list[str]:
    """Return at most MOST_LAYERS names: the first, the last and others at equal distances."""
    count = min(len(names), MOST_LAYERS)
    return [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]
