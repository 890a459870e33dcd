"""diagnosis.json, read again: the recorded series of a run, and what the run's rules find in them. Imports no torch."""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossfit import overrides
from lossfit.config import Config, build
from lossfit.diagnosis import Found, History, Rule, replay, rules
from lossfit.diagnosis.changes import Remedy
from lossfit.diagnosis.diagnosis import names_at_end
from lossfit.diagnosis.remedies import CALIBRATE, remedies, with_folder
from lossfit.errors import UserError, one_line, printable
from lossfit.plain_values import is_name, shown
from lossfit.runs import names
from lossfit.runs.folder import read_config, read_overrides
from lossfit.runs.result import read_result, resume_command
from lossfit.system import files, locks

RULES = [f"{rules.__name__}.{name}" for name in rules.__all__]  # all that a config may name here
UNFINISHED = ("running", "interrupted", None)  # statuses of runs that can go on


@dataclass(frozen=True)
class Diagnosed:
    """A run's recorded series, its rules without those that fail on them, and what these found, the gravest first.

    remedies: alternatives, each of words to type together, by the name of the finding.
    """

    folder: Path
    config: Config
    history: History
    rules: Mapping[str, Rule]
    found: Sequence[Found]
    remedies: Mapping[str, Sequence[Remedy]]

    def lines(self, found: Found) -> list[str]:
        """Return what the run printed of a finding at its end, with the folder for RUN."""
        lines = found.lines(still_to_try(self.remedies[found.last.name], self.folder))
        return [printable(line) for line in lines]  # names in it may be from anyone


def still_to_try(remedies: Sequence[Remedy], folder: Path) -> list[Remedy]:
    """Return remedies with the folder for RUN, without the temperature for a run that has been calibrated."""
    calibrated = (folder / names.CALIBRATION).exists()
    return with_folder([one for one in remedies if not (calibrated and list(one) == CALIBRATE)], folder)


def found_names(folder: Path) -> list[str] | None:
    """Return the names of the findings that hold, in a run's diagnosis.json, the gravest first; None if it has none."""
    try:
        found = names_at_end(_content(folder / names.DIAGNOSIS)["findings"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return found if all(map(is_name, found)) else None


def diagnose(folder: Path) -> Diagnosed:
    """Evaluate the rules of a run on its recorded series, at the moments at which they were evaluated in training.

    The folder may come from anyone: its config may only name the rules of lossfit, with plain arguments.
    Raises UserError for a folder without a diagnosis.json, and for one that is damaged.
    """
    config = read_config(folder)
    history = _history(folder, config)
    all_rules = _rules(folder, config)
    findings = replay(history, all_rules)
    if all_rules and len(findings.failed) == len(all_rules):
        raise UserError(
            f"{folder / names.DIAGNOSIS} is damaged: every rule fails on its series; only a new run writes it"
        )
    kept = {name: rule for name, rule in all_rules.items() if name not in findings.failed}
    found = findings.listed()
    try:
        tried = {one.last.name: remedies(one.last, history, config) for one in found}
    except Exception as error:  # of a config that was changed by hand: any key may be missing, or of another type
        raise UserError(
            f"{folder / names.CONFIG} is damaged: no remedy can be fitted to it ({type(error).__name__}: "
            f"{one_line(error)}); only a new run writes it"
        ) from error
    return Diagnosed(folder, config, history, kept, found, tried)


def is_diagnosed(config: Config) -> bool:
    """Whether a run has the callback that diagnoses it."""
    callbacks = config.get("callbacks")
    return isinstance(callbacks, dict) and callbacks.get("diagnosis") is not None


def _history(folder: Path, config: Config) -> History:
    file = folder / names.DIAGNOSIS
    if not file.exists():
        result = read_result(folder)
        status, reason = result.get("status"), result.get("reason")
        if status == "running" and locks.is_held(folder):
            remedy = "the run is still training: wait until it ends"
        elif status in UNFINISHED:
            remedy = f"it is written when the training ends; {resume_command(folder)} goes on with the run"
        elif not is_diagnosed(config):
            remedy = f"the run was trained without the callback that writes it: train again {_with_diagnosis(folder)}"
        else:
            why = f": {printable(' '.join(str(reason).split())[:300])}" if reason else ""
            remedy = f"the run failed{why}" if status == "failed" else "it was removed; train again"
        raise UserError(f"{folder} has no {file.name}: {remedy}")
    try:
        return History.from_plain(_content(file).get("history"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {one_line(error)}; only a new run writes it") from error


def _with_diagnosis(folder: Path) -> str:
    """Say how the command of a run is changed so that it has the callback."""
    with suppress(UserError):
        off = [text for text in read_overrides(folder) if overrides.key(text) == "callbacks.diagnosis"]
        if off:
            return f"without {printable(shlex.join(off))}"
    return "with +callbacks=diagnosis"


def _content(file: Path) -> dict[str, Any]:
    content = json.loads(files.read_text(file))
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return content


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
                f"{folder / names.CONFIG}: callbacks.diagnosis.rules.{printable(name)} must be a function of "
                f"{rules.__name__} with _partial_: true and plain arguments, got {shown(rule)}"
            )
    return dict(build(nodes, "callbacks.diagnosis.rules"))


def _is_rule(node: Any) -> bool:
    """Whether a node is a call of one of lossfit's rules, so that building it runs nothing else."""
    if not isinstance(node, dict) or node.get("_target_") not in RULES or not node.get("_partial_"):
        return False
    return not any(isinstance(value, dict | list) for value in node.values())
