"""The two kinds of report, each put together from its parts."""

from contextlib import suppress
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

from markupsafe import Markup

from lossfit.diagnosis.picture import evidence
from lossfit.diagnosis.suspects import Suspect, suspects
from lossfit.errors import UserError
from lossfit.report import page, sweep
from lossfit.report import run as runs_report
from lossfit.report.charts import charts
from lossfit.report.svg import drawing, svg
from lossfit.runs.diagnosed import diagnose
from lossfit.tasks import metric_names


def of_run(folder: Path, data: str | None = None, trust_code: bool = False) -> str:
    """Return the page about a run. data: where the files of its data are now."""
    from lossfit.report.measured import measured  # imports torch, which the page about a sweep does not need
    from lossfit.report.pictures import training_pictures

    facts = runs_report.read(folder)
    model = measured(folder, facts.split, data, trust_code)
    best = facts.result.get("best_epoch")
    reached = {epoch for curve in facts.curves.values() for epoch in curve}
    best_epoch = best if type(best) is int and best in reached else None
    drawn, suspected = _evidence(folder)
    images = training_pictures(folder, [one.index for one in suspected], data, trust_code) if suspected else []
    higher = metric_names.direction_of(facts.headline) == "max"
    return page.render(
        "run.html",
        run=facts,
        model=model,
        evidence=drawn,
        suspects=list(zip_longest(suspected, images)),
        charts=charts(facts.curves, facts.summary.headline, best_epoch, facts.diagnosis.findings),
        better="higher is better" if higher else "lower is better",
        written=_now(),
    )


def _evidence(folder: Path) -> tuple[dict[str, Markup], list[Suspect]]:
    """Return the picture of the series that show each finding, and the images whose labels look wrong.

    Both are empty if they are not there to be read.
    """
    found, suspected = {}, []
    with suppress(UserError):
        run = diagnose(folder)
        for one in run.found:
            with drawing():
                figure = evidence(run.history, one)
            found[one.last.name] = svg(figure, f"evidence {one.last.name}")
            if one.last.name == "label_noise" and one.holds:
                suspected = suspects(run.history)
    return found, suspected


def of_sweep(folder: Path, metric: str | None = None, direction: metric_names.Direction | None = None) -> str:
    """Return the page about a sweep or a folder of runs, by a metric; None for the headline of their task."""
    return page.render("sweep.html", sweep=sweep.read(folder, metric, direction), written=_now())


def _now() -> str:
    return datetime.now().astimezone().strftime("%d %B %Y at %H:%M")
