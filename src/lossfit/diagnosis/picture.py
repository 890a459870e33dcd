"""The series behind the findings of a run as a picture: a row for each finding. Only this file imports matplotlib."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from lossfit.diagnosis.diagnosis import Found
from lossfit.diagnosis.finding import COLORS
from lossfit.diagnosis.history import History

AXES = {  # what is drawn on one pair of axes, by column
    **dict.fromkeys(("loss", "loss_max", "train_loss", "sample_loss", "val_loss"), "loss"),
    **dict.fromkeys(("sample_score", "val_score"), "score"),
    "lr": "learning rate",
    **dict.fromkeys(("grad_norm", "grad"), "norm of the gradient"),
    "weight": "norm of the weights",
    "update": "update / weight, of their norms",
    "recall": "recall",
    "predicted_share": "share of the predictions",
    "dead": "share of dead units",
    "margins": "mean margin of the training sample",
    "bins": "share that is right",
}
LABELS = {
    "loss": "training batches",
    "loss_max": "the worst training batch",
    "train_loss": "training",
    "sample_loss": "training images, measured as validation",
    "sample_score": "training images, measured as validation",
    "val_loss": "validation",
    "val_score": "validation",
    "grad_norm": "all parameters",
}
MEMBERS = {"recall": "names", "predicted_share": "names", "dead": "units"}  # the fact with the names of the columns
LOGARITHMIC = ("learning rate", "norm of", "update / weight")
FEW = 6  # lines that are drawn each in its own color
SHOWN = (0, 5, 10, 15, 20)  # of the 21 quantiles of the margins


@dataclass(frozen=True)
class Line:
    """A series over epochs. faint: it is there for comparison, and has no label."""

    label: str
    epochs: np.ndarray
    values: np.ndarray
    faint: bool = False


def picture(history: History, found: Sequence[Found], title: str) -> bytes:
    """Draw the series of each finding over the epochs, as a PNG; a dashed line marks since when it holds."""
    file = io.BytesIO()
    with rc_context({"text.parse_math": False}):  # a class or a folder may be named $x$
        figure = Figure(figsize=(11, 0.5 + 3.4 * len(found)), layout="constrained")
        figure.suptitle(title, fontsize="medium")
        rows = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
        for row, one in zip(rows, found, strict=True):
            _draw_finding(row, history, one)
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def evidence(history: History, found: Found) -> Figure:
    """Draw the series of one finding, without its text."""
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    _draw_series(figure, history, found)
    return figure


def _draw_finding(part: SubFigure, history: History, found: Found) -> None:
    part.suptitle(fill(found.line, 120), color=COLORS[found.last.severity], x=0.01, ha="left", fontsize="medium")
    _draw_series(part, history, found)


def _draw_series(part: Figure | SubFigure, history: History, found: Found) -> None:
    columns = _by_axes(history, found.last.series)
    named = set(_texts(found.last.evidence))
    places = part.subplots(1, max(1, len(columns)), squeeze=False)[0]
    if not columns:
        places[0].axis("off")
        rows = [f"{name}: {value}" for name, value in found.last.evidence.items()]
        places[0].text(0, 1, "\n".join(fill(row, 120) for row in rows[:8]), va="top", transform=places[0].transAxes)
    for axes, (name, of_axes) in zip(places, columns.items(), strict=False):
        if "evaluations.bins" in of_axes:
            _draw_reliability(axes, history.evaluations["bins"])
            continue
        _draw_lines(axes, [line for column in of_axes for line in _lines(history, column, named)], name)
        axes.axvline(found.first.epoch, color="black", linestyle="--", linewidth=1, label=f"since {found.since}")
        axes.set(xlabel="epoch", ylabel=str(history.facts.get("headline", name)) if name == "score" else name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize="x-small")


def _by_axes(history: History, series: Sequence[str]) -> dict[str, list[str]]:
    """Return those columns of a finding that were recorded, by their axes."""
    found: dict[str, list[str]] = {}
    for name in series:
        part, _, column = name.partition(".")
        values = _values(history, part, column)
        if values is not None and np.isfinite(values).any():
            found.setdefault(AXES.get(column, column), []).append(name)
    return found


def _values(history: History, part: str, column: str) -> np.ndarray | None:
    """Return a recorded column; None if there is none. Updates are counted in the norm of the weights."""
    values = {"steps": history.steps, "evaluations": history.evaluations}.get(part, {}).get(column)
    if column != "update" or values is None:
        return values
    weight = history.steps["weight"]
    return np.divide(values, weight, out=np.full_like(values, np.nan), where=weight > 0)


def _lines(history: History, name: str, named: set[str]) -> Iterator[Line]:
    """Yield the lines of a column: one, or of several members those that the evidence names, or the first and last."""
    part, _, column = name.partition(".")
    values, epochs = _values(history, part, column), getattr(history, part)["epoch"]
    assert values is not None
    if values.ndim == 1:
        yield Line(LABELS.get(column, column), epochs, values)
        return
    members = _members(history.facts, column, values.shape[1])
    chosen = [k for k, member in enumerate(members) if any(f"{member}.".startswith(f"{one}.") for one in named)]
    if column == "margins":
        chosen = [k for k in SHOWN if k < len(members)]
    elif not chosen and len(members) > FEW:
        chosen = [0, len(members) - 1]
    elif not chosen:
        chosen = list(range(len(members)))
    chosen = chosen if len(chosen) <= FEW else [chosen[round(k)] for k in np.linspace(0, len(chosen) - 1, FEW)]
    for k in range(len(members)):
        if k not in chosen:
            yield Line("", epochs, values[:, k], faint=True)
    for k in chosen:
        yield Line(members[k], epochs, values[:, k])


def _members(facts: Mapping[str, Any], column: str, width: int) -> list[str]:
    if column == "margins":
        inner = [f"{k / (width - 1):.0%} of the images are below" for k in range(1, width - 1)]
        return ["lowest", *inner, "highest"]
    names = facts.get(MEMBERS.get(column, "parameters"))
    return (
        [str(name) for name in names]
        if isinstance(names, list) and len(names) == width
        else list(map(str, range(width)))
    )


def _draw_lines(axes: Axes, lines: Sequence[Line], name: str) -> None:
    values = np.concatenate([line.values for line in lines])
    positive = values[np.isfinite(values) & (values > 0)]
    wide = len(positive) and (values[np.isfinite(values)] > 0).all() and positive.max() > 50 * positive.min()
    logarithmic = (name.startswith(LOGARITHMIC) and len(positive)) or (name == "loss" and wide)
    for line in lines:
        drawn = np.where(line.values > 0, line.values, np.nan) if logarithmic else line.values
        faint = {"color": "0.8", "linewidth": 0.6, "zorder": 1} if line.faint else {"label": line.label}
        axes.plot(line.epochs, drawn, marker="." if len(drawn) < 30 and not line.faint else None, **faint)
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)


def _draw_reliability(axes: Axes, bins: np.ndarray) -> None:
    """Draw the share of right predictions over the confidence of the last validation that has them."""
    last = bins[np.isfinite(bins).all(1)][-1].reshape(-1, 3)
    count, confidence, correct = last[last[:, 0] > 0].T
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfect calibration")
    axes.plot(confidence / count, correct / count, marker="o", label="validation")
    axes.set(xlabel="mean probability of the predicted class", ylabel=AXES["bins"], xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a finding's evidence, such as the names of modules and classes."""
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _texts(item)
