"""Many runs side by side. Imports no torch, Lightning or Hydra, and matplotlib only in plot.py.

reading.py       run folders -> RunSummary       table.py   a Leaderboard as text, CSV and Markdown
options.py       which options differ            plot.py    a Leaderboard as a picture
leaderboard.py   RunSummaries -> Leaderboard
"""

from lossfit.compare.leaderboard import Leaderboard, Setting, leaderboard
from lossfit.compare.options import group_of
from lossfit.compare.reading import RunSummary, command, find, read

__all__ = ["Leaderboard", "RunSummary", "Setting", "command", "find", "group_of", "leaderboard", "read"]
