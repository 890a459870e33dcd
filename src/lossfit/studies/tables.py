"""The tables of a study in Markdown: the metrics with their differences from the baseline, values, findings."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lossfit.compare.table import line
from lossfit.studies.statistic import cell

Content = Mapping[str, Any]
SHARES = {"acc", "recall"}  # are shown in percent


def tables(content: Content) -> str:
    """Return all tables: a column for each metric, or with several settings a table for each."""
    rows, settings, metrics = content["rows"], [*content["settings"]], content["metrics"]
    further: dict[str, Callable[[str, str], str]] = {}
    if content["search"]["factors"]:
        further[content["search"]["key"]] = lambda row, setting: chosen(content, row, setting)
    if any(one["findings"] for one in content["results"]):
        further["findings"] = lambda row, setting: findings(content, row, setting)
    if any(one["status"] != "completed" for one in content["results"]) or _missing(content):
        further["runs that count"] = lambda row, setting: counted(content, row, setting)
    if len(settings) == 1:
        heads = [*metrics.values(), *further]
        cells = [
            [
                row,
                *(shown(content, m, row, settings[0]) for m in metrics),
                *(f(row, settings[0]) for f in further.values()),
            ]
            for row in rows
        ]
        return markdown(["", *heads], cells)
    parts = []
    for metric, text in metrics.items():
        cells = [[row, *(shown(content, metric, row, one) for one in settings)] for row in rows]
        parts += [f"**{text}**", markdown(["", *settings], cells)]
    for name, of in further.items():
        parts += [
            f"**{name}**",
            markdown(["", *settings], [[row, *(of(row, one) for one in settings)] for row in rows]),
        ]
    return "\n\n".join(parts)


def shown(content: Content, metric: str, row: str, setting: str) -> str:
    """Return mean ± standard deviation, and in brackets the difference from the baseline ± its standard error."""
    one = cell(content, metric, row, setting)
    if not one.values:
        return "-"
    factor, form = form_of(metric, one.mean)
    text = f"{factor * one.mean:{form}} ± {factor * one.deviation:{form}}"
    if len(one.values) < len(content["seeds"]):
        text += f", n={len(one.values)}"
    if one.difference is None or one.error is None:
        return text
    text += f" ({factor * one.difference:+{form}} ± {factor * one.error:{form}})"
    return f"**{text}**" if one.ahead else text


def form_of(metric: str, mean: float) -> tuple[float, str]:
    """Return by what the values of a cell are multiplied, shares by 100, and their format."""
    if is_share(metric):
        return 100, ".2f"
    size = abs(mean)
    if size and not 1e-3 <= size < 1e5:
        return 1, ".2g"
    return 1, f".{4 - len(str(int(size))) if size >= 1 else 4}f" if size < 1000 else ".0f"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of the images, shown in percent."""
    return bool(SHARES & {*re.split(r"[/_]", metric)})


def chosen(content: Content, row: str, setting: str) -> str:
    """Return the value that the search chose, and whether it is the lowest or the highest one that was tried."""
    value = next((one["value"] for one in content["results"] if (one["row"], one["setting"]) == (row, setting)), None)
    if value is None:
        return "none"
    where = content["search"]["setting"] or setting
    tried = [one["value"] for one in content["search"]["runs"] if (one["row"], one["setting"]) == (row, where)]
    numbers = sorted(float(text.partition("=")[2]) for text in tried)
    text = value.partition("=")[2]
    edge = {numbers[0]: " (lowest)", numbers[-1]: " (highest)"} if len(numbers) > 1 else {}
    return text + edge.get(float(text), "")


def findings(content: Content, row: str, setting: str) -> str:
    """Return what the diagnosis found in the runs, with the number of runs if it is not all of them."""
    own = [one["findings"] or [] for one in _of(content, row, setting)]
    counts = Counter(name for names in own for name in names)
    return ", ".join(name if n == len(own) else f"{name} ({n} of {len(own)})" for name, n in counts.most_common())


def counted(content: Content, row: str, setting: str) -> str:
    """Return how many runs are completed, and what became of the others."""
    own = Counter(one["status"] for one in _of(content, row, setting))
    others = [f"{n} {status}" for status, n in own.items() if status != "completed"]
    return ", ".join([f"{own['completed']} of {len(content['seeds'])}", *others])


def _missing(content: Content) -> bool:
    return len(content["results"]) < len(content["rows"]) * len(content["settings"]) * len(content["seeds"])


def _of(content: Content, row: str, setting: str) -> list[Mapping[str, Any]]:
    return [one for one in content["results"] if (one["row"], one["setting"]) == (row, setting)]


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table."""
    return "\n".join([line(heads), line(["---"] * len(heads)), *map(line, rows)])
