"""The content of study.json: what the run folders of a study say, and which value of the search is the best."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lossfit import runs
from lossfit.compare.curves import X_AXES, x_of_epochs
from lossfit.plain_values import float32_digits, is_moderate
from lossfit.studies.measured import measured
from lossfit.tasks.metric_names import direction_of


def search_run(key: tuple[Any, ...], folder: Path, metric: str) -> dict[str, Any]:
    """Return what a run of the search says; only a completed one has the metric.

    key: row, setting, and the override that was tried.
    """
    row, setting, value = key
    result = runs.read_result(folder)
    status = result.get("status")
    found = result.get("metrics", {}).get(metric) if status == "completed" else None
    return {"row": row, "setting": setting, "value": value, "status": status, "metric": found, **_seconds(result)}


def best(searched: Iterable[Mapping[str, Any]], row: str, setting: str, metric: str) -> str | None:
    """Return the value with which a row's search run has the best metric; one that diverged has none.

    None if no run has one, or as long as a run of the search is not finished.
    """
    own = [one for one in searched if (one["row"], one["setting"]) == (row, setting)]
    if any(one["status"] not in runs.FINISHED for one in own):
        return None
    pick = max if direction_of(metric) == "max" else min
    found = [one for one in own if one["metric"] is not None]
    return pick(found, key=lambda one: one["metric"])["value"] if found else None


def seed_run(folder: Path, metrics: Iterable[str], curves: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run with a seed says, its metrics measured if it is completed, and its curve if one is asked for.

    curves: metric, and x, the names of X_AXES. The curve is a list of [value, place on each x axis].
    """
    result = runs.read_result(folder)
    found: dict[str, Any] = {"status": result.get("status"), "findings": result.get("findings"), **_seconds(result)}
    found["metrics"] = measured(folder, metrics) if found["status"] == "completed" else {}
    if curves:
        values = runs.curve(folder, curves["metric"])
        places = [x_of_epochs(folder, x) for x in curves["x"]]
        known = [epoch for epoch in values if all(epoch in one for one in places)]
        found["curve"] = [[float32_digits(one[epoch]) for one in (values, *places)] for epoch in known]
    return found


def _seconds(result: Mapping[str, Any]) -> dict[str, float]:
    seconds = result.get("timings", {}).get("total_s")
    return {"seconds": seconds if is_moderate(seconds) else 0.0}


def circumstances(folders: Sequence[Path]) -> dict[str, Any]:
    """Return when, where and with which code the runs of a study were made, as their results say."""
    results = [runs.read_result(folder) for folder in folders]

    def every(key: str) -> list[str]:
        return sorted({str(result[key]) for result in results if result.get(key)})

    days = [started[:10] for started in every("started")]
    versions = [result["versions"] for result in results if result.get("versions")]
    return {
        "date": " to ".join(sorted({days[0], days[-1]})) if days else "",
        "machine": "; ".join(every("machine")),
        "devices": every("devices"),
        "versions": {
            name: ", ".join(sorted({one[name] for one in versions if name in one})) for name in runs.versions()
        },
        "commits": every("git"),
    }


def check_curves(curves: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the curves that a study asks for."""
    axes = curves.get("x")
    known = isinstance(axes, list) and axes and all(x in [*X_AXES] for x in axes)
    if curves and not (set(curves) == {"metric", "x"} and isinstance(curves["metric"], str) and known):
        return f"must have metric, and x from {', '.join(X_AXES)}, got {curves}"
    return None
