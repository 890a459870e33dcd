"""The curves of a run over its epochs: the losses in one chart, the headline metric, the learning rate."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lossfit.report.effects import Effect
from lossfit.report.findings import ReportedFinding
from lossfit.report.svg import TAB, drawing, svg

Curves = Mapping[str, Mapping[int, float]]  # a column of metrics.csv -> epoch -> value

SIZE = 3.75, 2.7  # inches
WIDE = 30.0  # ratio of the largest to the smallest loss from which its axis is logarithmic
COLORS = {"train": TAB[0], "val": TAB[1]}


def charts(
    curves: Curves, headline: str, best_epoch: int | None, findings: Sequence[ReportedFinding] = ()
) -> list[Markup]:
    """Return a chart of each group of curves that the run has."""
    name = headline.rpartition("/")[2]
    groups = {
        "loss": ("train/loss", "val/loss"),
        name: (f"train/{name}", headline),
        "learning rate": ("train/lr",),
    }
    found = []
    for title, columns in groups.items():
        shown = {column: curves[column] for column in columns if curves.get(column)}
        if shown:
            with drawing():
                figure = _chart(title, shown, best_epoch, findings if title == "loss" else ())
            found.append(svg(figure, f"curve {title}"))
    return found


def _chart(title: str, shown: Curves, best_epoch: int | None, findings: Sequence[ReportedFinding]) -> Figure:
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    for column, curve in shown.items():
        split = column.partition("/")[0]
        epochs = list(curve)
        axes.plot(
            epochs, list(curve.values()), color=COLORS[split], linewidth=1.6, label=column,
            marker="o" if len(epochs) < 25 else None, markersize=3,
        )  # fmt: skip
    values = [value for curve in shown.values() for value in curve.values()]
    if title == "loss" and min(values) > 0 and max(values) / min(values) > WIDE:
        axes.set_yscale("log")
    elif min(values) == max(values) > 0:
        axes.set_ylim(0, 2 * max(values))  # of a constant: else an axis of a few percent around it
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, loc="left")
    axes.grid(axis="y")
    _mark(axes, best_epoch, findings)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(
            fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=3, frameon=False,
            handlelength=1.2, columnspacing=1.0,
        )  # fmt: skip
    return figure


def _mark(axes: Axes, best_epoch: int | None, findings: Sequence[ReportedFinding]) -> None:
    """Draw a line at the epoch whose weights were kept, and one from where the evidence shows each finding."""
    if best_epoch is not None:
        axes.axvline(best_epoch, color="#808080", linestyle=":", linewidth=1, label="best epoch")
    last = axes.dataLim.x1  # a finding from elsewhere may name any epoch
    first: dict[float, list[str]] = {}
    for finding in findings:
        if finding.epoch is not None and 0 <= finding.epoch <= last + 1:
            first.setdefault(finding.epoch, []).append(finding.name)
    for epoch, names in first.items():
        axes.axvline(epoch, color=TAB[3], linestyle="--", linewidth=1)
        axes.annotate(
            ", ".join(names), (epoch, 0.03), xycoords=axes.get_xaxis_transform(), xytext=(-2, 0),
            textcoords="offset points", color=TAB[3], fontsize=7, rotation=90, ha="right", va="bottom",
        )  # fmt: skip


def effect_chart(effect: Effect, metric: str) -> Markup:
    """Return the metric of each run by the value of an option: a dot for each run, a diamond for the mean."""
    with drawing():
        height = SIZE[1] if effect.numbers else 0.75 + 0.3 * len(effect.levels)
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        axes = figure.add_subplot()
        levels, values = zip(*effect.points, strict=True)
        if effect.numbers:
            _scatter_numbers(axes, effect, values)
            axes.set_ylabel(metric)
        else:
            axes.plot(values, levels, "o", color=TAB[0], alpha=0.45, markersize=5, markeredgewidth=0)
            means = [level.mean for level in effect.levels]
            axes.plot(means, range(len(means)), "D", color=TAB[1], markersize=6)
            axes.set_yticks(range(len(means)), [shorten(level.value, 24) for level in effect.levels])
            axes.set_ylim(len(means) - 0.5, -0.5)
            axes.set_xlabel(metric)
            axes.grid(axis="x")
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(shorten(effect.option, 40), loc="left")
    return svg(figure, f"effect {effect.option}")


def _scatter_numbers(axes: Axes, effect: Effect, values: Sequence[float]) -> None:
    axes.scatter(effect.numbers, values, color=TAB[0], alpha=0.5, s=14, linewidths=0)
    if min(effect.numbers) > 0 and max(effect.numbers) / min(effect.numbers) > WIDE:
        axes.set_xscale("log")
    axes.grid()


def shorten(text: str, most: int) -> str:
    """Return a text with at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
