"""The curves of a run, as metrics.csv has them. Imports no torch."""

import csv
from pathlib import Path

from lossfit.plain_values import is_moderate, is_number
from lossfit.runs import names
from lossfit.system import files


def curve(folder: Path, metric: str) -> dict[int, float]:
    """Return a metric by epoch, from 1, for the epochs that metrics.csv has; empty without the file."""
    try:
        rows = list(csv.DictReader(files.read_text(folder / names.METRICS).splitlines()))
    except (OSError, ValueError, csv.Error):
        return {}
    found = {}
    for row in rows:
        try:
            epoch, value = int(row["epoch"]), float(row[metric])
        except (KeyError, TypeError, ValueError):  # no such column, a row that is being written, a missing value
            continue
        if is_number(epoch) and is_moderate(value):
            found[epoch] = value
    return found
