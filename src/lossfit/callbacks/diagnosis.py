"""Says in words what a run suffers from."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from lossfit.callbacks.first_not_finite import first_not_finite
from lossfit.callbacks.recorder import Recorder, place
from lossfit.diagnosis import Finding, Findings, Found, History, Rule, replay
from lossfit.diagnosis.diagnosis import names_at_end
from lossfit.diagnosis.history import is_due, is_due_within_epoch
from lossfit.diagnosis.remedies import remedies, with_folder
from lossfit.errors import Diverged, did_you_mean
from lossfit.loggers import TensorBoardLogger
from lossfit.ranges import Count, checked
from lossfit.runs import names
from lossfit.system import files
from lossfit.training.module import Batch, TrainingModule

log = logging.getLogger(__name__)

TINY = 1e-12  # the smallest norm that an update is divided by


class Diagnosis(Callback):
    """Records losses, gradients and updates, diagnoses the run by `rules`, and says what it finds, with remedies.

    A finding is printed when it is found first and at the end of the run, shown in TensorBoard, and written with the
    recorded series to diagnosis.json in the run folder. The training itself is not changed: a run ends in the same bits
    with and without it.

    every_n_steps: how many optimizer steps lie between two rows of the series; null for 100 to 200 rows a run, at most
    1000 steps apart. samples: how many training images are evaluated beside each validation, at most 5% of the training
    split if that is more than 256. stop: the names of rules whose findings end the run; a trial of a search is then
    pruned. rules: by name; null turns one off. save_dir: the run's folder.

    findings_report: the findings as they were written last. findings_lines: the same in words, for the end of the run.
    findings_at_end: the names of those that hold.
    """

    @checked
    def __init__(
        self,
        save_dir: str,
        rules: Mapping[str, Rule | None],
        every_n_steps: Count | None = None,
        samples: Count = 1000,
        stop: Sequence[str] = (),
    ) -> None:
        self.folder = Path(save_dir)
        self.rules = {name: rule for name, rule in rules.items() if rule is not None}
        for name in stop:
            if name not in self.rules:
                raise ValueError(f"stop must hold names of rules, got {name!r}{did_you_mean(name, self.rules)}")
        self.stop = tuple(stop)
        self.stopping_reason_message: str | None = None  # as Lightning's EarlyStopping names it
        self.recorder = Recorder(every_n_steps, samples)
        self.findings = Findings(self.rules)
        self.unprinted: list[Found] = []  # findings that are printed after the epoch's line
        self.findings_report: list[dict[str, Any]] | None = None
        self.findings_lines: list[str] = []
        self.findings_at_end: list[str] | None = None
        self.started = False
        self.keeps_batch = False
        self.batch: Batch | None = None
        self.shown = 0  # the last step whose norms were written to TensorBoard
        self.pruned = False
        self.pictured: list[tuple[str, bool]] = []  # the findings in the last picture, and whether they hold

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to record; of a resumed run, find again what was found."""
        self.recorder.on_train_start(trainer, pl_module)
        self.shown = trainer.global_step
        self.keeps_batch = trainer.world_size == 1 and pl_module.device.type == "cpu"
        self.findings = replay(self.recorder.history, self.rules, ended=False)
        self.unprinted = [found for found in self.findings.found.values() if found.holds or not found.told]
        self.started = True

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch: its loss may not be finite. Other devices and ranks are not looked at after each batch."""
        if self.keeps_batch:
            self.batch = batch

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Record the gradients."""
        self.recorder.on_before_optimizer_step(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the step, and diagnose."""
        assert isinstance(pl_module, TrainingModule)
        if self.recorder.on_train_batch_end(trainer, pl_module.last_loss):
            every = trainer.log_every_n_steps  # type: ignore[attr-defined]
            if every and trainer.global_step - self.shown >= every:
                self.shown = trainer.global_step
                self._show_layers(trainer)
            if is_due_within_epoch(len(self.recorder.steps)):
                self._diagnose(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Evaluate the sample."""
        if batch_idx == 0 and _is_of_the_training(trainer):
            self.recorder.on_validation_batch_start(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the validation, and diagnose."""
        if _is_of_the_training(trainer):
            self.recorder.on_validation_end(trainer, pl_module)
            if is_due(len(self.recorder.evaluations)):
                self._diagnose(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what the epoch before has shown, after its line."""
        self._print_new(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Diagnose the whole run; the run's closing lines say what was found."""
        self.batch = None
        self.findings.update(self.recorder.history)
        self._write(trainer)
        self._show_findings(trainer, self.findings_report or [])

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where a run that diverged was first not finite, and write what was recorded."""
        if not self.started:
            return
        try:
            if isinstance(exception, Diverged):
                assert isinstance(pl_module, TrainingModule)
                batch = self.batch if exception.in_this_batch else None
                self.recorder.facts["non_finite"] = {
                    **place(trainer),
                    "what": str(exception),
                    "where": first_not_finite(trainer, pl_module, batch),
                    "step": exception.step,
                    "batch": None if batch is None else trainer.fit_loop.batch_idx + 1,
                }
                self.unprinted += self.findings.update(self.recorder.history)
                self._print_new(trainer)
            self._write(trainer)
        except Exception as error:  # the run's own error must not be replaced
            log.warning("the diagnosis of the run that ended fails: %r", error)

    def state_dict(self) -> dict[str, Any]:
        """Return the series."""
        return self.recorder.state_dict()

    def rank_state(self) -> dict[str, Any]:
        """Return what differs among ranks, for LastCheckpoint."""
        return self.recorder.rank_state()

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `rank_state` returned on this rank."""
        self.recorder.load_rank_state(state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the series of the run so far."""
        self.recorder.load_state_dict(state_dict)

    def _diagnose(self, trainer: Trainer) -> None:
        self.unprinted += self.findings.update(self.recorder.history)
        if not self.stop:
            return
        found = self.findings.found
        stopping = [name for name in self.stop if name in found and found[name].holds]
        if trainer.strategy.reduce_boolean_decision(bool(stopping), all=False) and not self.stopping_reason_message:
            reason = found[stopping[0]].line if stopping else "a finding of another process"
            self.stopping_reason_message = f"stopped by the diagnosis: {reason}"
            self.pruned = (self.folder.parent / names.STUDY).exists()
            trainer.should_stop = True

    def _print_new(self, trainer: Trainer) -> None:
        """Print the findings that are new and hold, and show all in TensorBoard."""
        new = [found for found in self.unprinted if found.holds]
        if not new:
            return
        report = self._report(trainer)
        for line in self._lines(new, report):
            log.info("%s", line)
        self._show_findings(trainer, report)
        self.unprinted = [found for found in self.unprinted if not found.holds]

    def _lines(self, some: Iterable[Found], report: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return what is printed of findings, with their remedies in the report."""
        offered = {one["name"]: with_folder(one["remedies"], files.from_here(self.folder)) for one in report}
        return [line for found in some for line in found.lines(offered[found.last.name])]

    def _remedies(self, finding: Finding, history: History, trainer: Trainer) -> list[list[str]]:
        try:
            return remedies(finding, history, _config(trainer))
        except Exception as error:  # a training must not end because of it
            log.warning("no remedy against %s is offered: %r", finding.name, error)
            return []

    def _report(self, trainer: Trainer) -> list[dict[str, Any]]:
        history = self.recorder.history
        return self.findings.to_plain(lambda finding: self._remedies(finding, history, trainer))

    def _show_findings(self, trainer: Trainer, report: Sequence[Mapping[str, Any]]) -> None:
        """Show findings as text, and as a picture if there is a new one or one holds no longer."""
        state = [(one["name"], one["holds"]) for one in report]
        shown = [{**one, "remedies": with_folder(one["remedies"], files.from_here(self.folder))} for one in report]
        for logger in _boards(trainer):
            logger.log_findings(shown, trainer.global_step, picture=state != self.pictured)
        self.pictured = state

    def _show_layers(self, trainer: Trainer) -> None:
        """Show the norms of the last row, without those of biases, in TensorBoard."""
        row, facts = self.recorder.steps[-1], self.recorder.facts
        layers = {facts["parameters"][i].removesuffix(".weight"): i for i, dims in enumerate(facts["dims"]) if dims > 1}
        for logger in _boards(trainer):
            gradients = {name: float(row["grad"][i]) for name, i in layers.items()}
            updates = {name: float(row["update"][i] / max(row["weight"][i], TINY)) for name, i in layers.items()}
            logger.log_layers(int(row["step"]), gradients, updates)

    def _write(self, trainer: Trainer) -> None:
        self.findings_report = self._report(trainer)
        self.findings_at_end = names_at_end(self.findings_report)
        self.findings_lines = self._lines(self.findings.listed(), self.findings_report)
        if trainer.is_global_zero:
            content = {"findings": self.findings_report, "history": self.recorder.history.to_plain()}
            files.write_json(self.folder / names.DIAGNOSIS, content, indent=None)


def _is_of_the_training(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _boards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _config(trainer: Trainer) -> dict[str, Any]:
    config = trainer.lightning_module.hparams["config"]
    assert isinstance(config, dict)
    return config
