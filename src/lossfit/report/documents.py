"""The two kinds of report, each put together from its parts."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from lossfit.plain_values import is_finite
from lossfit.report import page, run, sweep
from lossfit.report.charts import charts
from lossfit.runs import names
from lossfit.tasks import metric_names


def of_run(folder: Path, data: str | None = None, trust_code: bool = False) -> str:
    """Return the page about a run. data: where the files of its data are now."""
    from lossfit.report.measured import measured  # imports torch, which the page about a sweep does not need

    facts = run.read(folder)
    model = measured(folder, facts.split, data, trust_code)
    best = facts.result.get("best_epoch")
    best_epoch = best if isinstance(best, int) else None
    higher = metric_names.direction_of(facts.headline) == "max"
    return page.render(
        "run.html",
        run=facts,
        model=model,
        charts=charts(facts.curves, facts.summary.headline, best_epoch, facts.diagnosis.findings),
        calibration=_calibration(folder),
        better="higher is better" if higher else "lower is better",
        written=_now(),
    )


def of_sweep(folder: Path, metric: str | None = None, direction: metric_names.Direction | None = None) -> str:
    """Return the page about a sweep or a folder of runs, by a metric; None for the headline of their task."""
    return page.render("sweep.html", sweep=sweep.read(folder, metric, direction), written=_now())


def _calibration(folder: Path) -> Mapping[str, Any] | None:
    """Return what evaluate.py --calibrate found; None if it is not there or not readable."""
    try:
        found = json.loads((folder / names.CALIBRATION).read_text(encoding="utf-8"))
        pairs = {key: found[key] for key in ("nll", "ece")}
        known = {key: pair for key, pair in pairs.items() if is_finite(pair["before"]) and is_finite(pair["after"])}
        return {"temperature": float(found["temperature"]), **known}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _now() -> str:
    return datetime.now().astimezone().strftime("%d %B %Y at %H:%M")
