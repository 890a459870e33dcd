"""Loggers that write into the run folder itself: TensorBoard with an HPARAMS tab, and a CSV file."""

import csv
import io
import logging
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from lossfit.option_files import chosen
from lossfit.plain_values import float32_digits
from lossfit.runs import names
from lossfit.system import files

log = logging.getLogger(__name__)


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger, which here writes into save_dir itself.

    metrics: the metrics that the HPARAMS tab shows, under result/, with their values in result.json at the end of the
    run; null for all of validation and test. hparams: the options that it shows, each a group or a dotted key; null for
    all. first_step: the step from which a resumed run continues; its curves from there on are written again.
    all_metrics: those of validation and test.
    """

    def __init__(
        self,
        save_dir: str,
        metrics: Sequence[str] | None = None,
        hparams: Sequence[str] | None = None,
        first_step: int = 0,
        all_metrics: Sequence[str] = (),
    ) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=first_step or None)
        self.metrics = all_metrics if metrics is None else metrics
        self.hparams_shown = hparams

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Write the run's options and the names of its metrics."""
        config = dict(params)["config"] if isinstance(params, Mapping) else vars(params)["config"]
        shown = dict(_flat({part: node for part, node in config.items() if part not in ("callbacks", "logger")}))
        if self.hparams_shown is not None:
            choices = {part: str(option) for part, option in chosen(config).items()}
            shown = {key: value for key, value in (shown | choices).items() if key in self.hparams_shown}
        for summary in hparams(shown, {f"result/{name}": 0.0 for name in self.metrics}):
            self.experiment._get_file_writer().add_summary(summary)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the values of the HPARAMS tab, at the end of the run."""
        for name in self.metrics:
            if name in metrics:
                self.experiment.add_scalar(f"result/{name}", metrics[name], step)
        self.experiment.flush()

    @rank_zero_only
    def save(self) -> None:
        """Flush the events, without Lightning's hparams.yaml, which would repeat config.yaml."""
        self.experiment.flush()


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return a config's values by dotted name, without nulls; a list becomes a text."""
    flat: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat += _flat(value, f"{name}.")
        elif not key.startswith("_") and value is not None:
            flat.append((name, value if isinstance(value, (bool, int, float, str)) else str(value)))
    return flat


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
