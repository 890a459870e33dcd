"""The curves of a run, as metrics.csv has them. Imports no torch."""

import csv
import math
from pathlib import Path

from lossfit.runs import names


def curve(folder: Path, metric: str) -> dict[int, float]:
    """Return a metric by epoch, from 1, for the epochs that metrics.csv has; empty without the file."""
    try:
        with (folder / names.METRICS).open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error):
        return {}
    found = {}
    for row in rows:
        try:
            epoch, value = int(row["epoch"]), float(row[metric])
        except (KeyError, TypeError, ValueError):  # no such column, a row that is being written, a missing value
            continue
        if math.isfinite(value):
            found[epoch] = value
    return found
