"""What a rule finds in a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["note", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "note")  # the gravest first


COLORS = {"critical": "#b00020", "warning": "#b35900", "note": "#33518a"}  # of text on white, by severity


def since(epoch: float, step: Any) -> str:
    """Return in words since when a finding holds: the epoch, or within an epoch the step."""
    return f"epoch {max(1, round(epoch))}" if epoch == round(epoch) else f"step {step}"


@dataclass(frozen=True)
class Finding:
    """What a run suffers from.

    name: that of its rule. text: the evidence in one sentence. epoch, step: since when the series show it. evidence:
    the same in plain values. series: the columns of a History that a picture of it shows, as evaluations.val_loss.
    """

    name: str
    severity: Severity
    text: str
    epoch: float
    step: int
    evidence: Mapping[str, Any]
    series: tuple[str, ...]
