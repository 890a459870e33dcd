"""What TensorBoard says in words: the findings of a run, and its result."""

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from lossfit.diagnosis.finding import COLORS, since
from lossfit.tasks.metric_names import EVALUATED, SPLITS

LETTERS = 44, 62  # in a line of the picture of one finding, and of several, whose letters are smaller


def findings(found: Sequence[Mapping[str, Any]]) -> str:
    """Return findings, as in diagnosis.json, in Markdown."""
    parts = []
    for one in found:
        parts.append(f"**{_headline(one)}**: {one['text']}")
        if remedies := _remedies(one):
            parts.append("\n".join(f"- try `{remedy}`" for remedy in remedies))
    return "\n\n".join(parts)


def findings_figure(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw findings as text that can be read on a card."""
    letters = LETTERS[len(found) > 1]
    lines: list[tuple[str, dict[str, Any]]] = []

    def add(text: str, **style: Any) -> None:
        lines.extend((line, style) for line in textwrap.wrap(text, letters))

    for one in found:
        add(_headline(one), color=COLORS.get(str(one["severity"]), "black"), weight="bold")
        add(str(one["text"]))
        for remedy in _remedies(one):
            add(f"try {remedy}", style="italic")
        lines.append(("", {}))
    count = max(letters // 4, len(lines))  # of the shape of a card
    figure = Figure(figsize=(0.115 * letters, 0.28 * count))
    for row, (line, style) in enumerate(lines):
        figure.text(0.01, 1 - (row + 0.5) / count, line, va="center", fontsize=13, parse_math=False, **style)
    return figure


def result(metrics: Mapping[str, float]) -> str:
    """Return final metrics as a Markdown table: a row for each one that is evaluated, a column for each split."""
    splits = [split for split in SPLITS if any(key.startswith(f"{split}/") for key in metrics)]
    names = dict.fromkeys(name for split, _, name in (key.partition("/") for key in metrics) if split in EVALUATED)
    rows = [
        [name, *(f"{metrics[key]:.4g}" if (key := f"{split}/{name}") in metrics else "" for split in splits)]
        for name in names
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (["metric", *splits], ["---"] * (len(splits) + 1), *rows))


def _headline(one: Mapping[str, Any]) -> str:
    when = since(float(one["since"]["epoch"]), one["since"]["step"])
    over = "" if one.get("holds", True) else ", no longer"
    return f"{one['severity']}: {one['name']} since {when}{over}"


def _remedies(one: Mapping[str, Any]) -> list[str]:
    return [shlex.join(remedy) for remedy in one.get("remedies") or ()]
