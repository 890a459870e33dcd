"""metrics.csv in the run folder: a row for each epoch."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lossfit.plain_values import float32_digits
from lossfit.runs import names
from lossfit.system import files

log = logging.getLogger(__name__)


class CSVLogger(Logger):
    """Writes metrics.csv into save_dir: a row for each epoch, a column for each metric, without values of single steps.

    A resumed run keeps the rows of the epochs before the first that it logs.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / names.METRICS
        self.rows: dict[int, dict[str, Any]] = {}
        if self.path.exists():
            self._read()

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """The empty version: a run folder has one only."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: the options are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add an epoch's metrics to its row."""
        values = {
            name: float32_digits(value)
            for name, value in metrics.items()
            if name.split("/")[0] in ("train", "val", "epoch")
        }
        if "epoch" not in metrics or any(name.endswith("_step") for name in metrics):
            return
        epoch = int(values.pop("epoch"))
        if values:
            self.rows = {number: row for number, row in self.rows.items() if number <= epoch}
            self.rows.setdefault(epoch, {"epoch": epoch + 1, "step": step or 0}).update(values)
            self._write()

    def _read(self) -> None:
        """Read the rows of an earlier start, without damaged lines, which are logged as a warning."""
        text = self.path.read_text(encoding="utf-8", errors="replace").replace("\0", "")
        damaged = 0
        for row in csv.DictReader(io.StringIO(text)):
            try:
                values = {name: value for name, value in row.items() if name and value}
                for value in values.values():
                    float(value)
                self.rows[int(values["epoch"]) - 1] = values
            except (KeyError, TypeError, ValueError):
                damaged += 1
        if damaged:
            log.warning("%s: %d damaged lines are left out", self.path, damaged)

    def _write(self) -> None:
        columns = dict.fromkeys(name for row in self.rows.values() for name in row)
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(self.rows.values())
        files.write(self.path, stream.getvalue())
