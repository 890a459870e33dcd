"""What diagnosis.json says of a run: the findings, each with its remedies."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossfit.config import Config
from lossfit.diagnosis.finding import SEVERITIES, since
from lossfit.errors import printable
from lossfit.plain_values import is_finite
from lossfit.runs import names
from lossfit.runs.diagnosed import UNFINISHED, is_diagnosed, still_to_try
from lossfit.system import files

MOST = 1000  # findings


@dataclass(frozen=True)
class ReportedFinding:
    """A finding.

    epoch, since: since when, as a fraction and in words; None and empty if it is not known. remedies: each what to type
    together.
    """

    name: str
    severity: str
    text: str
    epoch: float | None
    since: str
    holds: bool
    remedies: list[str]


@dataclass(frozen=True)
class ReportedFindings:
    """The findings, the gravest first. note: what to know if there are none; empty if the run is healthy."""

    findings: list[ReportedFinding]
    note: str = ""


def read(folder: Path, result: Mapping[str, Any], config: Config) -> ReportedFindings:
    """Read the findings of a run folder. result: its result.json. config: its config, empty if it is not known."""
    path = folder / names.DIAGNOSIS
    try:
        content = json.loads(files.read_text(path))
        if len(content["findings"]) > MOST:
            raise ValueError("it has more findings than there are rules")
        found = [_found(one, folder) for one in content["findings"]]
    except FileNotFoundError:
        listed = result.get("findings")
        if isinstance(listed, list) and listed:
            named = ", ".join(map(str, listed))
            return ReportedFindings([], f"result.json names {named}, but {path.name} is not here.")
        if result.get("status") in UNFINISHED:
            return ReportedFindings(
                [], f"{path.name} is written when the training ends. {names.LOG} has the findings so far."
            )
        if is_diagnosed(config):
            failed = result.get("status") == "failed"
            why = "The run failed before its diagnosis was written" if failed else f"{path.name} is not here"
            return ReportedFindings([], f"{why}, so nothing is known.")
        return ReportedFindings([], "The run was trained without the callback diagnosis, so nothing is known.")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ReportedFindings([], f"{path.name} cannot be read, so nothing is known.")
    return ReportedFindings(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def _found(one: Mapping[str, Any], folder: Path) -> ReportedFinding:
    when = one.get("since") or {}
    epoch: Any = when.get("epoch")
    severity = str(one.get("severity"))
    remedies = [list(map(str, remedy)) for remedy in one.get("remedies") or ()]
    return ReportedFinding(
        name=printable(one["name"]),
        severity=severity if severity in SEVERITIES else "note",
        text=printable(one["text"]),
        epoch=epoch if is_finite(epoch) else None,
        since=since(epoch, when.get("step")) if is_finite(epoch) else "",
        holds=bool(one.get("holds", True)),
        remedies=[printable(shlex.join(remedy)) for remedy in still_to_try(remedies, files.from_here(folder))],
    )
