"""What a run suffers from: recorded series -> findings, by pure functions. Imports no torch.

history.py     History: the recorded series      rules/         one function for each finding
finding.py     Finding                           remedies.py    what to type against it
diagnosis.py   replay: findings, since when
"""

from lossfit.diagnosis.diagnosis import Findings, Found, Rule, replay
from lossfit.diagnosis.finding import Finding
from lossfit.diagnosis.history import History

__all__ = ["Finding", "Findings", "Found", "History", "Rule", "replay"]
