"""What the report of a run says that needs no model: how it ended, its curves, its options, how to repeat it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossfit import compare, runs
from lossfit.compare import RunSummary
from lossfit.config import Config
from lossfit.errors import UserError
from lossfit.report import defaults, findings
from lossfit.report.charts import Curves
from lossfit.runs import names
from lossfit.system import files

ENDINGS = {  # by status: what a reader has to know first
    "running": "This run is still training; the report is of what it has reached so far",
    "waiting": "This run has not started",
    "failed": "This run failed",
    "diverged": "This run diverged: its loss or a weight became NaN or infinite",
    "interrupted": "This run was interrupted before its end",
    "killed": "The process of this run was killed before its end",
    "pruned": "This run was stopped before its end",
    "unreadable": "The folder of this run is damaged",
}


@dataclass(frozen=True)
class RunFacts:
    """A run folder.

    ending: what a reader has to know first; empty for a run that is completed. split: to measure the model on. result:
    of result.json. command: that repeats the run; None if it is not known. resume: that continues it; None if it is
    over. config: config.yaml as text. curves: the columns of metrics.csv; no_curves: why there are none. missing: what
    else is not here, and why, a sentence each.
    """

    summary: RunSummary
    split: str
    result: dict[str, Any]
    ending: str
    command: str | None
    resume: str | None
    differences: list[defaults.Difference]
    config: str
    diagnosis: findings.ReportedFindings
    curves: Curves
    no_curves: str
    missing: list[str]

    @property
    def headline(self) -> str:
        """The name of the metric that stands for the run, without its split."""
        return self.summary.headline.rpartition("/")[2]

    @property
    def about(self) -> str:
        """What was trained, in a line."""
        choices = {part: self.summary.options.get(part) for part in ("data", "model", "loss", "optimizer", "scheduler")}
        parts = [f"{part} {choice}" for part, choice in choices.items() if choice]
        if isinstance(count := self.result.get("parameters"), int):
            parts.append(f"{count:,} parameters")
        if isinstance(epochs := self.result.get("epochs"), int):
            best = self.result.get("best_epoch")
            parts.append(f"{epochs} epoch{'' if epochs == 1 else 's'}" + (f", the best {best}" if best else ""))
        return " · ".join(parts)

    @property
    def origin(self) -> dict[str, str]:
        """When, on what and with which versions it was trained, as far as that is recorded."""
        versions, images = self.result.get("versions"), self.result.get("images")
        found = {
            "started": self.summary.started,
            "seconds": ", ".join(f"{name.removesuffix('_s')} {n}" for name, n in _mapping(self.result.get("timings"))),
            "data": self.result.get("source"),
            "images": ", ".join(f"{_count(count)} {split}" for split, count in _mapping(images)),
            "machine": self.result.get("machine"),
            "devices": self.result.get("devices"),
            "versions": ", ".join(f"{package} {version}" for package, version in _mapping(versions)),
            "code": self.result.get("git"),
            "folder": str(self.summary.folder.absolute()),
        }
        return {fact: str(text) for fact, text in found.items() if text}

    @property
    def name(self) -> str:
        """The name of its folder, with that of the sweep if it is a job of one."""
        folder = self.summary.folder.absolute()
        return f"{folder.parent.name}/{folder.name}" if folder.name.isdecimal() else folder.name


def read(folder: Path) -> RunFacts:
    """Read a run folder, whatever is in it."""
    summary, result = compare.read(folder), runs.read_result(folder)
    missing = []
    config: Config = {}
    text, command = "", None
    try:
        config = runs.read_config(folder)
        text = files.read_text(folder / names.CONFIG)
    except (OSError, UserError):
        missing.append(f"{names.CONFIG} cannot be read, so the options of the run are not known.")
    try:
        command = compare.command(summary)
    except UserError as error:
        missing.append(f"The command is not known: {error}.")
    if not result:
        missing.append(f"{names.RESULT} {_state(folder / names.RESULT)}, so final metrics and versions are not known.")
    curves = _curves(folder, summary)
    return RunFacts(
        summary=summary,
        split=_split(folder, config),
        result=result,
        ending=_ending(summary),
        command=command,
        resume=runs.resume_command(folder) if summary.status in ("interrupted", "killed") else None,
        differences=defaults.differing(config),
        config=text,
        diagnosis=findings.read(folder, result, config),
        curves=curves,
        no_curves="" if curves else f"There are none: {names.METRICS} {_state(folder / names.METRICS)}.",
        missing=missing,
    )


def _mapping(node: Any) -> Iterable[tuple[str, Any]]:
    return node.items() if isinstance(node, dict) else ()


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _split(folder: Path, config: Config) -> str:
    """Return val for a run that was kept from its test split, and has no evaluation of it."""
    evaluated = (folder / names.EVALUATION.format(split="test")).exists()
    return "val" if config.get("test") is False and not evaluated else "test"


def _ending(summary: RunSummary) -> str:
    """Return the sentence about a run that is not completed, with the reason that is known.

    That of a run whose process is gone says no more than the sentence.
    """
    sentence = ENDINGS.get(summary.status, "")
    reason = " ".join(summary.reason.split())
    reason = f": {reason}" if reason and summary.status != "killed" else ""
    return f"{sentence}{reason.rstrip('.')}." if sentence else ""


def _curves(folder: Path, summary: RunSummary) -> Curves:
    name = summary.headline.rpartition("/")[2]
    columns = ("train/loss", "val/loss", f"train/{name}", summary.headline, "train/lr")
    return {column: curve for column in columns if (curve := runs.curve(folder, column))}


def _state(file: Path) -> str:
    """Return what is wrong with a file."""
    if not file.exists():
        return "is missing"
    return "is damaged" if file.is_file() and file.stat().st_size else "is empty"
