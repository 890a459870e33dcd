"""TensorBoard: curves of training and validation, findings, pictures, and the HPARAMS tab."""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lossfit import overrides
from lossfit.loggers import tags, texts
from lossfit.option_files import chosen


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger, which here writes into save_dir itself, and the curves into its subfolders `train` and `val`.

    TensorBoard then shows training and validation as two lines of one chart. `tags` says where each metric is shown. In
    a sweep the names of the subfolders have the swept values, as val_sgd-lr0.1.

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
        self.all_metrics = all_metrics
        self.metrics = all_metrics if metrics is None else metrics
        self.hparams_shown = hparams
        self.first_step = first_step
        self.suffix = ""  # of the names of the subfolders
        self.parts: dict[str, SummaryWriter] = {}
        self.begun = self.has_layers = False
        self.last_steps: dict[tuple[str, str], int | None] = {}

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Write the run's options, the names of its metrics and the layout of the CUSTOM SCALARS tab."""
        if self.begun:  # Lightning calls this before the training and before the test
            return
        self.begun = True
        config = dict(params)["config"] if isinstance(params, Mapping) else vars(params)["config"]
        shown = dict(_flat({part: node for part, node in config.items() if part not in ("callbacks", "logger")}))
        if self.hparams_shown is not None:
            choices = {part: str(option) for part, option in chosen(config).items()}
            shown = {key: value for key, value in (shown | choices).items() if key in self.hparams_shown}
            typed = [f"{key}={shown[key]}" for key in self.hparams_shown if key in shown]
            self.suffix = f"_{overrides.short_name(typed, choices)}" if typed else ""
        for summary in hparams(shown, {f"{tags.RESULT}/{name}": 0.0 for name in self.metrics}):
            self.experiment._get_file_writer().add_summary(summary)
        self.experiment.add_custom_scalars(tags.curves(self.all_metrics))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write metrics under the names that `tags` has for them."""
        for key, value in metrics.items():
            place = tags.place(key)
            if place is not None and self.last_steps.get(place) != step:  # two keys may be one curve
                part, tag = place
                self._writer(part).add_scalar(tag, value, step)
                self.last_steps[place] = step

    @rank_zero_only
    def log_layers(self, step: int, gradients: Mapping[str, float], updates: Mapping[str, float]) -> None:
        """Write norms of gradients, and of updates relative to the weights, by layer; of many layers some."""
        if not self.has_layers:
            self.has_layers = True
            self._writer(tags.TRAIN).add_custom_scalars(tags.layers())
        for tag, values in ((tags.GRADIENT, gradients), (tags.UPDATE, updates)):
            for name in tags.thinned(list(values)):
                if math.isfinite(values[name]):
                    self._writer(tags.TRAIN).add_scalar(f"{tag}/{name}", values[name], step)

    @rank_zero_only
    def log_findings(self, findings: Sequence[Mapping[str, Any]], step: int, picture: bool = True) -> None:
        """Write all findings so far, each as in diagnosis.json, in the TEXT tab and as a picture beside the curves."""
        if findings:
            self.experiment.add_text(tags.FINDINGS, texts.findings(findings), step)
        if findings and picture:
            self.experiment.add_figure(tags.FINDINGS_PICTURE, texts.findings_figure(findings), step)

    @rank_zero_only
    def log_result(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the values of the HPARAMS tab and the table of the TEXT tab, at the end of the run."""
        for name in self.metrics:
            if name in metrics:
                self.experiment.add_scalar(f"{tags.RESULT}/{name}", metrics[name], step)
        self.experiment.add_text(tags.RESULT, texts.result(metrics), step)
        self.save()

    @rank_zero_only
    def save(self) -> None:
        """Flush the events, without Lightning's hparams.yaml, which would repeat config.yaml."""
        for writer in (self.experiment, *self.parts.values()):
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the files."""
        super().finalize(status)
        for writer in self.parts.values():
            writer.close()

    def _writer(self, part: str) -> SummaryWriter:
        """Return what writes into a subfolder, "" for the run folder."""
        if not part:
            return self.experiment
        if part not in self.parts:
            folder = Path(self.save_dir) / f"{part}{self.suffix}"
            self.parts[part] = SummaryWriter(str(folder), purge_step=self.first_step or None)
        return self.parts[part]


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
