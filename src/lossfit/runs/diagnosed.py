"""diagnosis.json, read again: the recorded series of a run, and what the run's rules find in them. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossfit.config import Config, build
from lossfit.diagnosis import Found, History, Rule, replay
from lossfit.diagnosis.diagnosis import by_severity
from lossfit.diagnosis.remedies import remedies, with_folder
from lossfit.errors import UserError, one_line, printable
from lossfit.plain_values import shown
from lossfit.runs import names
from lossfit.runs.folder import read_config
from lossfit.runs.result import read_result, resume_command

LARGEST = 2**28  # bytes of a diagnosis.json
RULES = "lossfit.diagnosis.rules"
UNFINISHED = ("running", "interrupted", None)  # statuses of runs that can go on


@dataclass(frozen=True)
class Diagnosed:
    """A run's recorded series, its rules without those that fail on them, and what these found, the gravest first."""

    folder: Path
    config: Config
    history: History
    rules: Mapping[str, Rule]
    found: Sequence[Found]

    def lines(self, found: Found) -> list[str]:
        """Return what the run printed of a finding at its end, with the folder for RUN."""
        lines = found.lines(with_folder(remedies(found.last, self.history, self.config), self.folder))
        return [printable(line) for line in lines]  # names in it may be from anyone


def diagnose(folder: Path) -> Diagnosed:
    """Evaluate the rules of a run on its recorded series, at the moments at which they were evaluated in training.

    The folder may come from anyone: its config may only name the rules of lossfit, with plain arguments.
    Raises UserError for a folder without a diagnosis.json, and for one that is damaged.
    """
    config = read_config(folder)
    file = folder / names.DIAGNOSIS
    history = _history(folder, file)
    rules = _rules(folder, config)
    findings = replay(history, rules)
    if rules and len(findings.failed) == len(rules):
        raise UserError(f"{file} is damaged: every rule fails on its series; only a new run writes it")
    rules = {name: rule for name, rule in rules.items() if name not in findings.failed}
    return Diagnosed(folder, config, history, rules, by_severity(findings.found.values()))


def _history(folder: Path, file: Path) -> History:
    if not file.exists():
        if read_result(folder).get("status") in UNFINISHED:
            remedy = (
                f"it is written when the training ends; {resume_command(folder)} goes on with a run that was stopped"
            )
        else:
            remedy = "the run was trained without the callback that writes it: train again with +callbacks=diagnosis"
        raise UserError(f"{folder} has no {file.name}: {remedy}")
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise ValueError(f"it is no file of at most {LARGEST:,} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "history" not in content:
            raise ValueError("it holds no history of a run")
        return History.from_plain(content["history"])
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {one_line(error)}; only a new run writes it") from error


def _rules(folder: Path, config: Config) -> dict[str, Rule]:
    callbacks = config.get("callbacks")
    node = callbacks.get("diagnosis") if isinstance(callbacks, dict) else None
    nodes = node.get("rules") if isinstance(node, dict) else None
    if not isinstance(nodes, dict):
        raise UserError(
            f"{folder / names.CONFIG} has no callbacks.diagnosis.rules, by which the series would be judged"
        )
    nodes = {name: rule for name, rule in nodes.items() if rule is not None}
    for name, rule in nodes.items():
        if not _is_rule(rule):
            raise UserError(
                f"{folder / names.CONFIG}: callbacks.diagnosis.rules.{printable(name)} must be a function of {RULES} "
                f"with _partial_: true and plain arguments, got {shown(rule)}"
            )
    return dict(build(nodes, "callbacks.diagnosis.rules"))


def _is_rule(node: Any) -> bool:
    """Whether a node is a call of one of lossfit's rules, so that building it runs nothing else."""
    if not isinstance(node, dict) or not str(node.get("_target_")).startswith(f"{RULES}.") or not node.get("_partial_"):
        return False
    return not any(isinstance(value, dict | list) for value in node.values())
