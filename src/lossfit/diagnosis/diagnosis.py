"""The findings of a run: since when each holds, and whether it still does."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossfit.diagnosis.finding import SEVERITIES, Finding, since
from lossfit.diagnosis.history import History

log = logging.getLogger(__name__)

Rule = Callable[[History], Finding | None]


@dataclass
class Found:
    """A finding over time.

    first, last: as it was found first and last. holds: whether it still holds. told: whether it held after a
    validation; what was found and gone between two validations is not printed.
    """

    first: Finding
    last: Finding
    holds: bool = True
    told: bool = False

    @property
    def since(self) -> str:
        """Since when it holds, in words."""
        return since(self.first.epoch, self.first.step)

    @property
    def line(self) -> str:
        """The finding in words, without its severity."""
        return f"{self.last.name} since {self.since}{'' if self.holds else ', no longer'}: {self.last.text}"

    def lines(self, remedies: Sequence[Sequence[str]]) -> list[str]:
        """Return what is printed of the finding. remedies: alternatives, each of overrides that belong together."""
        said = f"{self.last.severity.capitalize()}: {self.line}"
        tries = remedies_line(list(map(shlex.join, remedies))) if self.holds else ""
        return [said, *([f"  {tries}"] if tries else [])]


@dataclass
class Findings:
    """Rules over a history that grows. found: by the names of the findings, in the order in which they were found."""

    rules: Mapping[str, Rule]
    found: dict[str, Found] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def update(self, history: History) -> list[Found]:
        """Evaluate all rules; return the findings that are new. A rule that fails is left out from then on."""
        new = []
        for name, rule in self.rules.items():
            if name in self.failed:
                continue
            try:
                with np.errstate(all="ignore"):  # values of a run that diverges overflow
                    finding = rule(history)
            except Exception as error:  # a training must not end because of a mistake in a rule
                self.failed.add(name)
                log.warning("callbacks.diagnosis.rules.%s fails and is left out: %r", name, error)
                continue
            if name in self.found:
                self.found[name].holds = finding is not None
                self.found[name].last = finding or self.found[name].last
            elif finding is not None:
                self.found[name] = Found(finding, finding)
                new.append(self.found[name])
        if _ends_with_validation(history):
            for found in self.found.values():
                found.told = found.told or found.holds
        return by_severity(new)

    def listed(self) -> list[Found]:
        """Return the findings that hold, and those that were told and hold no longer, the gravest first."""
        return by_severity(found for found in self.found.values() if found.holds or found.told)

    def to_plain(self, remedies: Callable[[Finding], Any]) -> list[dict[str, Any]]:
        """Return the findings for a JSON file, the gravest first."""
        return [
            {
                "name": one.last.name,
                "severity": one.last.severity,
                "since": {"epoch": one.first.epoch, "step": one.first.step},
                "holds": one.holds,
                "text": one.last.text,
                "evidence": dict(one.last.evidence),
                "series": list(one.last.series),
                "remedies": remedies(one.last),
            }
            for one in self.listed()
        ]


def remedies_line(remedies: Sequence[str]) -> str:
    """Return a line that offers alternatives, each a text to type; empty if there are none.

    Each is overrides for the command of the run, or a command of its own, which begins with `python`.
    """
    parts = [f"run {one}" if one.startswith("python ") else one for one in remedies]
    first = next((k for k, one in enumerate(remedies) if not one.startswith("python ")), None)
    if first is not None:
        parts[first] = f"add to the end of the command: {parts[first]}"
    return ", or ".join(parts)


def names_at_end(report: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the findings that a run has at its end, of findings as `to_plain` returns them."""
    return [one["name"] for one in report if one.get("holds", True)]


def _ends_with_validation(history: History) -> bool:
    steps, evaluated = history.steps["step"], history.evaluations["step"]
    return bool(len(evaluated) and (not len(steps) or evaluated[-1] >= steps[-1]))


def by_severity(found: Any) -> list[Found]:
    """Return findings, the gravest first."""
    return sorted(found, key=lambda one: SEVERITIES.index(one.last.severity))


def replay(history: History, rules: Mapping[str, Rule], ended: bool = True) -> Findings:
    """Return what the rules find in a history, evaluated as they were while the run trained. ended: whether it has."""
    findings = Findings(rules)
    for steps, evaluations in history.moments(ended):
        findings.update(history.until(steps, evaluations))
    return findings
