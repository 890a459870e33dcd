"""Measure a trained classifier on a split: metrics with 95% intervals, metrics of each class, calibration, confusion.

Shapes: logits (V, N, C) of V views of N images, V = 1 without test-time augmentation; labels (N,) int64.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

import lossfit.data
from lossfit.config import call
from lossfit.data import ImageDataModule, InMemoryDataModule
from lossfit.decisions import probabilities
from lossfit.errors import ConfigError, UserError
from lossfit.inference.classifier import TrainedClassifier
from lossfit.metrics.evaluation import confusion_matrix
from lossfit.plain_values import float32_digits, is_name, is_plain, shown

Z = 1.959964  # standard deviations on each side of the mean that hold 95% of a normal distribution
DIGEST = re.compile("[0-9a-f]{64}")  # SHA-256
BINS = 15  # of equal width, for confidences from 0 to 1


def split(classifier: TrainedClassifier, name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the images (N, C, H, W) uint8 and labels (N,) of a split of the run's data.

    name: train, val or test. folder: where the data's files are now; None for the folder of the run's config. The
    config may come from anyone: only lossfit's data modules are built, with plain values, and files are read, not
    downloaded. Raises UserError if the data cannot be read, or do not have the classifier's image shape and classes.
    """
    node = {key: value for key, value in classifier.config["data"].items() if key not in ("augment", "mix")}
    target = node.pop("_target_", None)
    general = (ImageDataModule, InMemoryDataModule)
    modules = {
        f"lossfit.data.{name}": kind
        for name, kind in vars(lossfit.data).items()
        if isinstance(kind, type) and issubclass(kind, ImageDataModule) and kind not in general
    }
    if target not in modules:
        raise UserError(f"the run's data module {shown(target)} is not one of lossfit's ({', '.join(modules)})")
    for key, value in node.items():
        digests = isinstance(value, dict) and all(is_name(k) and DIGEST.fullmatch(str(v)) for k, v in value.items())
        plain = digests or (is_plain(value, depth=0) and str(value).isprintable())
        if not plain or not is_name(key) or not key.isidentifier():
            raise UserError(f"the run's data have {shown(key)}: {shown(value)}, which is not a plain value")
    if folder is not None:
        node["dir"] = str(folder)
    try:
        data: ImageDataModule = call(modules[target], "data", **node)
        call(data.setup, "data")
    except ConfigError as error:
        raise UserError(f"{error}\n(of a run's data: --data FOLDER says where the files lie now)") from error
    if list(data.task.names) != list(classifier.classes) or tuple(data.image_shape) != tuple(classifier.image_shape):
        raise UserError(
            f"the run's data have {len(data.task.names)} classes and images {tuple(data.image_shape)}, and the model "
            f"has {len(classifier.classes)} and {classifier.image_shape}"
        )
    return data.splits[name]


@torch.inference_mode()
def logits_of(classifier: TrainedClassifier, images: Tensor) -> Tensor:
    """Pixels, uint8 (N, C, H, W) -> logits (N, num_classes), in batches of the run's eval_batch_size."""
    batches = images.split(int(classifier.config["data"].get("eval_batch_size", 1000)))
    return torch.cat([classifier.logits(batch) for batch in batches])


def measure(logits: Tensor, labels: Tensor, classifier: TrainedClassifier) -> dict[str, Any]:
    """Return the metrics of logits (V, N, C); the probabilities of several views are averaged.

    acc, nll, brier (the squared distance between probabilities and one-hot label, 0 to 2) and, with costs, cost and
    cost_argmax each have value, low and high. nll is that of softmax whatever the loss, as in a run's metrics. ece is
    the expected calibration error, the mean of |confidence - accuracy| over 15 bins of equal width. classes has
    recall, precision, F1 and support of each class; confusion has counts (C, C), rows the true class, columns the
    predicted one.
    """
    views, count, num_classes = logits.shape
    p = torch.stack([probabilities(view, classifier.link) for view in logits.double()]).mean(0)
    likeliest = (logits[0] if views == 1 else p).argmax(1)
    log_likelihood = logits.double().log_softmax(2).logsumexp(0) - math.log(views)
    correct = likeliest == labels
    one_hot = torch.nn.functional.one_hot(labels, num_classes)
    confusion = confusion_matrix(labels, likeliest, num_classes)
    bins = calibration(p.amax(1), correct)
    found: dict[str, Any] = {
        "samples": count,
        "acc": proportion(int(correct.sum()), count),
        "nll": mean(-log_likelihood.gather(1, labels[:, None])),
        "brier": mean((p - one_hot).square().sum(1)),
    }
    if classifier.costs is not None:
        costs = torch.tensor(classifier.costs)
        cheapest = classifier.decide(logits[0]) if views == 1 else (p.float() @ costs).argmin(1)
        found |= {"cost": mean(costs[labels, cheapest]), "cost_argmax": mean(costs[labels, likeliest])}
    return found | {
        "ece": float32_digits(sum(b["count"] * abs(b["acc"] - b["confidence"]) for b in bins if b["count"]) / count),
        "classes": per_class(confusion, classifier.classes),
        "calibration": bins,
        "confusion": confusion.tolist(),
    }


def proportion(count: int, total: int) -> dict[str, float] | None:
    """Return count / total with its 95% Wilson interval; None if total is 0."""
    if not total:
        return None
    p, spread = count / total, Z**2 / total
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(p * (1 - p) * spread + spread**2 / 4) / (1 + spread)
    return {
        "value": float32_digits(p),
        "low": float32_digits(max(0, middle - half)),
        "high": float32_digits(min(1, middle + half)),
    }


def mean(values: Tensor) -> dict[str, float]:
    """Return the mean of values (N,) with its 95% interval by the normal distribution."""
    values = values.double()
    middle = values.mean().item()
    half = Z * values.std(correction=min(1, values.numel() - 1)).item() / math.sqrt(values.numel())
    return {
        "value": float32_digits(middle),
        "low": float32_digits(middle - half),
        "high": float32_digits(middle + half),
    }


def per_class(confusion: Tensor, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return recall, precision, F1 and support of each class; None where the denominator is 0."""
    found = {}
    for k, name in enumerate(names):
        hits, support, predicted = (int(n) for n in (confusion[k, k], confusion[k].sum(), confusion[:, k].sum()))
        found[name] = {
            "recall": proportion(hits, support),
            "precision": proportion(hits, predicted),
            "f1": float32_digits(2 * hits / (support + predicted)) if support + predicted else None,
            "support": support,
        }
    return found


def calibration(confidence: Tensor, correct: Tensor) -> list[dict[str, Any]]:
    """Return count, mean confidence and accuracy in each bin; confidence and correct are (N,)."""
    bin_of = (confidence * BINS).long().clamp(max=BINS - 1)
    found = []
    for k in range(BINS):
        inside = bin_of == k
        some = bool(inside.any())
        found.append(
            {
                "from": float32_digits(k / BINS),
                "to": float32_digits((k + 1) / BINS),
                "count": int(inside.sum()),
                "confidence": float32_digits(confidence[inside].mean().item()) if some else None,
                "acc": float32_digits(correct[inside].double().mean().item()) if some else None,
            }
        )
    return found


def reliability_figure(bins: Sequence[dict[str, Any]], ece: float) -> Figure:
    """Draw a reliability diagram, accuracy against confidence, above a histogram of the confidences."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    filled = [b for b in bins if b["count"]]
    left, width = [b["from"] for b in filled], 1 / len(bins)
    gaps = [b["confidence"] - b["acc"] for b in filled]
    axes.bar(
        left, [b["acc"] for b in filled], width, align="edge", color="tab:blue", edgecolor="white", label="accuracy"
    )
    axes.bar(
        left, gaps, width, [b["acc"] for b in filled], align="edge", color="none", edgecolor="tab:red", hatch="///",
        label="difference from the confidence",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", label="perfect calibration")
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {ece:.4f}")
    axes.legend(loc="upper left")
    below.bar(left, [b["count"] for b in filled], width, align="edge", color="grey", edgecolor="white")
    below.set_xlim(0, 1)
    below.set_xlabel("confidence, the largest probability")
    below.set_ylabel("images")
    return figure
