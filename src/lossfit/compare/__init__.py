"""Many runs side by side. Imports no torch, Lightning or Hydra.

    reading.py       run folders -> RunSummary       curves.py   a metric over epochs, steps or seconds
    options.py       which options differ            table.py    a Leaderboard as text, CSV and Markdown
    leaderboard.py   RunSummary -> Leaderboard       plot.py     a Leaderboard as a picture

Only plot.py imports matplotlib.
"""

from lossfit.compare.leaderboard import Leaderboard, Setting, leaderboard
from lossfit.compare.options import columns, group_of, label
from lossfit.compare.reading import RunSummary, command, find, read

__all__ = [
    "Leaderboard",
    "RunSummary",
    "Setting",
    "columns",
    "command",
    "find",
    "group_of",
    "label",
    "leaderboard",
    "read",
]
