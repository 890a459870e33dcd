"""The findings of a run: since when each holds, and whether it still does."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lossfit.diagnosis.finding import SEVERITIES, Finding, since
from lossfit.diagnosis.history import History

log = logging.getLogger(__name__)

Rule = Callable[[History], Finding | None]


@dataclass
class Found:
    """A finding over time. first, last: as it was found first and last. holds: whether it still holds."""

    first: Finding
    last: Finding
    holds: bool = True

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
        if not self.holds:
            return [said]
        tries = "   or   ".join(shlex.join(remedy) for remedy in remedies)
        return [said, *([f"  try: {tries}"] if tries else [])]


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
        return by_severity(new)

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
            for one in by_severity(self.found.values())
        ]


def by_severity(found: Any) -> list[Found]:
    """Return findings, the gravest first."""
    return sorted(found, key=lambda one: SEVERITIES.index(one.last.severity))


def replay(history: History, rules: Mapping[str, Rule], ended: bool = True) -> Findings:
    """Return what the rules find in a history, evaluated as they were while the run trained. ended: whether it has."""
    findings = Findings(rules)
    for steps, evaluations in history.moments(ended):
        findings.update(history.until(steps, evaluations))
    return findings
