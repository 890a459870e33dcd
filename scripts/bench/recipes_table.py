"""The tables of recipes.py in Markdown: what each recipe reaches in how many seconds, and an ablation."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lossfit.plain_values import COUNT, EVERY, NUMBER, TEXT, Shape, or_null

Runs = Sequence[Mapping[str, Any]]
LEVELS = (0.85, 0.88, 0.90, 0.91, 0.92, 0.93, 0.94, 0.95)  # validation accuracies whose seconds are shown
BUSY = 0.5  # load average above the number of cores from which on other programs have run too
BOOL = "true or false", lambda value: isinstance(value, bool)
POSITIVE = "a number > 0", lambda value: NUMBER[1](value) and value > 0
POINT = "[seconds, accuracy]", lambda value: isinstance(value, list) and len(value) == 2 and all(map(NUMBER[1], value))
RUN: Shape = {
    **dict.fromkeys(("recipe", "digest", "precision"), TEXT),
    **dict.fromkeys(("seed", "epochs", "parameters"), COUNT),
    **dict.fromkeys(("fit_s", "test_s", "val", "load"), NUMBER),
    "seconds": POSITIVE,  # the picture's axis is logarithmic
    "test": or_null(NUMBER),
    "rival": BOOL,
    "curve": [POINT],
}
RESULTS: Shape = {  # of recipes.py
    "ablated": or_null(TEXT),
    "overrides": [TEXT],
    "hardware": {"machine": TEXT, "cores": COUNT, "versions": {EVERY: TEXT}},
    "runs": [RUN],
}


def by_recipe(runs: Runs) -> dict[str, list[Mapping[str, Any]]]:
    """Return the runs of each recipe, in the order in which the recipes were measured first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["recipe"], []).append(run)
    return found


def in_order(runs: Runs) -> dict[str, list[Mapping[str, Any]]]:
    """Return the runs of each recipe, lossfit's before the rivals', the fastest first."""
    groups = by_recipe(runs).items()
    return dict(sorted(groups, key=lambda item: (item[1][0]["rival"], statistics.fmean(r["seconds"] for r in item[1]))))


def recipe_table(runs: Runs) -> str:
    """Return the table of accuracies and seconds."""
    accuracies, times = (
        {"validation": "val", "test": "test"},
        {"training": "fit_s", "test": "test_s", "in all": "seconds"},
    )
    titles = ["recipe", "epochs", "parameters", "precision", *(f"{name}, s" for name in times), *accuracies, "seeds"]
    rows = []
    for name, some in in_order(runs).items():
        first = some[0]
        label = f"{name} (rival)" if first["rival"] else f"`{name}`"
        label += f", tested with tta={first['tta']}" if first.get("tta") else ""
        setting = [first["epochs"], f"{first['parameters']:,}", first["precision"]]
        seconds = [spread([run[key] for run in some], 1) for key in times.values()]
        reached = [percent([run[key] for run in some]) for key in accuracies.values()]
        rows.append([label, *setting, *seconds, *reached, len(some)])
    return markdown(titles, rows)


def levels_table(runs: Runs) -> str:
    """Return the table of training seconds until an epoch's validation accuracy first is at least each level.

    A level that only some seeds reach has no figure.
    """
    shown = [level for level in LEVELS if any(value >= level for run in runs for _, value in run["curve"])]
    rows = []
    for name, some in in_order(runs).items():
        cells = []
        for level in shown:
            times = [time_of(run["curve"], level) for run in some]
            cells.append("" if None in times else spread([time for time in times if time is not None], 1))
        if any(cells):
            rows.append([name, *cells])
    return markdown(["recipe", *(f"{100 * level:.0f}%" for level in shown)], rows) if shown else ""


def time_of(curve: Sequence[Sequence[float]], level: float) -> float | None:
    """Return the seconds of the first validation with at least this accuracy."""
    return next((seconds for seconds, value in curve if value >= level), None)


def ablation_table(runs: Runs, name: str) -> str:
    """Return the table of what a recipe's validation accuracy loses by each change, on the same seeds."""
    groups = by_recipe(runs)
    whole = {run["seed"]: run for run in groups.get(name, [])}
    rows = []
    for one, some in groups.items():
        pairs = [100 * (run["val"] - whole[run["seed"]]["val"]) for run in some if run["seed"] in whole]
        change = "" if one == name or not pairs else spread(pairs, 2, sign="+")
        label = f"`{name}`" if one == name else one.removeprefix(f"{name}, ")
        seconds = spread([run["fit_s"] for run in some], 1)
        rows.append([label, percent([run["val"] for run in some]), change, seconds, len(some)])
    return markdown(["recipe", "validation", "change, points", "training, s", "seeds"], rows)


def warnings(runs: Runs, cores: int) -> str:
    """Return a line about runs beside which other programs ran; empty if there is none."""
    busy = [f"{run['recipe']} seed {run['seed']} ({run['load']:.1f})" for run in runs if run["load"] > cores + BUSY]
    if not busy:
        return ""
    return (
        f"The machine was not idle: the load average was above {cores + BUSY} after {len(busy)} of {len(runs)} runs, "
        f"{', '.join(busy[:5])}{' and others' if len(busy) > 5 else ''}. Their seconds are too large."
    )


def percent(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation of accuracies in percent; empty if one was not measured."""
    known = [100 * value for value in values if value is not None]
    return spread(known, 2, "%") if len(known) == len(values) else ""


def spread(values: Sequence[float], digits: int, unit: str = "", sign: str = "") -> str:
    """Return mean ± standard deviation; of one value no deviation. sign: + to show that of the mean."""
    mean = f"{statistics.fmean(values):{sign}.{digits}f}{unit}"
    return f"{mean} ± {deviation(values):.{digits}f}" if len(values) > 1 else mean


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table, its columns aligned."""
    cells = [[str(cell) for cell in row] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
