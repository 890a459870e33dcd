"""What to type against a finding, fitted to the run."""

from collections.abc import Mapping
from typing import Any

from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History


def remedies(finding: Finding, history: History, config: Mapping[str, Any]) -> list[list[str]]:
    """Return alternatives, each of overrides that belong together."""
    return []
