"""Records the series of a run, and says in words what it suffers from."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim import Optimizer

from lossfit.callbacks.first_not_finite import first_not_finite
from lossfit.callbacks.layer_norms import LayerNorms
from lossfit.callbacks.run_facts import MEASURED, facts_of
from lossfit.callbacks.training_sample import TrainingSample
from lossfit.data import ImageDataModule
from lossfit.diagnosis import Diagnosis as Findings
from lossfit.diagnosis import Found, History, Rule, replay
from lossfit.diagnosis.diagnosis import by_severity
from lossfit.diagnosis.history import CHECK_EVERY, is_due
from lossfit.diagnosis.remedies import remedies
from lossfit.errors import Diverged, did_you_mean
from lossfit.loggers import TensorBoardLogger
from lossfit.ranges import Count, checked
from lossfit.runs import names
from lossfit.system import files
from lossfit.training import divergence
from lossfit.training.module import Batch, TrainingModule

log = logging.getLogger(__name__)

ROWS = 200  # of steps in a run
FARTHEST = 1000  # steps between two rows
TINY = 1e-12  # the smallest norm that an update is divided by


class Diagnosis(Callback):
    """Records losses, gradients and updates, diagnoses the run by `rules`, and says what it finds, with remedies.

    A finding is printed when it is found first and at the end of the run, and is written with the recorded series to
    diagnosis.json in the run folder. The training itself is not changed: a run ends in the same bits with and without.

    every_n_steps: how many optimizer steps lie between two rows of the series; null for 200 rows a run, at most 1000
    steps apart. samples: how many training images are evaluated beside each validation, at most 5% of the training
    split if that is more than 256. stop: the names of rules whose findings end the run. rules: by name; null turns one
    off. save_dir: the run's folder.
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
        self.every_n_steps, self.samples, self.stop = every_n_steps, samples, tuple(stop)
        self.stopping_reason_message: str | None = None  # as Lightning's EarlyStopping names it
        self.findings = Findings(self.rules)
        self.untold: list[Found] = []  # findings that are printed after the epoch's line
        self.report: list[dict[str, Any]] | None = None  # the findings as they were written last
        self.closing_lines: list[str] = []
        self.facts: dict[str, Any] = {}
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.losses: list[Tensor] = []  # of the batches since the last row of steps
        self.loss_sum, self.loss_count = torch.zeros(()), 0  # of the batches since the last validation
        self.resumed: Mapping[str, Any] = {}
        self.evaluated: dict[str, Any] = {}  # of the sample, for the validation that is running
        self.batch: Batch | None = None
        self.lr = 0.0

    @property
    def history(self) -> History:
        """What was recorded so far."""
        return History.of(self.facts, self.steps, self.evaluations)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the sample; of a new run, evaluate the untrained model."""
        module, data = _of_run(trainer, pl_module)
        self.norms = LayerNorms(module.model)
        self.sample = TrainingSample(data, self.samples)
        self.every = self.every_n_steps or min(max(1, module.total_steps // ROWS), FARTHEST)
        self.loss_sum = self.loss_sum.to(module.device)
        facts = facts_of(trainer, module, data) | {"every_n_steps": self.every, "sample": len(self.sample.target)}
        if self.resumed:
            self.facts = MEASURED | self.resumed["facts"] | facts
            self.sample.load_state_dict(self.resumed["sample"])
            self.findings = replay(self.history, self.rules)
        elif not trainer.global_step:
            self.facts = MEASURED | facts | self.sample.compare_with_constant(trainer, module)
        else:  # resumed from a checkpoint that has no series
            self.facts = MEASURED | facts

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the batch, in case that it is the one in which the loss is not finite."""
        self.batch = batch

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Take the gradients of a step that gets a row."""
        step = trainer.global_step + 1
        if step == 1 or step % self.every == 0:
            self.norms.before()
            self.lr = divergence.learning_rate(trainer)  # that of this step: a schedule steps before the batch ends

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row, and diagnose after each 20th."""
        module, _ = _of_run(trainer, pl_module)
        self.losses.append(module.last_loss)
        self.loss_sum += module.last_loss
        self.loss_count += 1
        if self.norms.gradients is not None:
            self.steps.append(self._row(trainer) | self.norms.after())
            self.losses = []
            self._show_layers(trainer)
            if len(self.steps) % CHECK_EVERY == 0:
                self._diagnose(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Evaluate the sample with the weights that the validation has: by now those of an average are in place."""
        if batch_idx == 0 and _validates(trainer):
            self.evaluated, units = self.sample.evaluate(trainer, _of_run(trainer, pl_module)[0])
            self.facts["units"] = units
            self.facts["suspects"] = self.sample.suspects(self.facts["names"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row, and diagnose."""
        if not _validates(trainer):
            return
        module, _ = _of_run(trainer, pl_module)
        measured = {name: value.double().cpu() for name, value in module.measured["val"].items()}
        row = self._place(trainer) | self.evaluated
        row |= {"val_loss": float(measured["loss"]), "val_score": float(measured[self._score])}
        row["train_loss"] = float(trainer.strategy.reduce(self.loss_sum / max(1, self.loss_count), reduce_op="mean"))
        if (confusion := measured.get("confusion")) is not None:
            row["recall"] = (confusion.diagonal() / confusion.sum(1)).numpy()
            row["predicted_share"] = (confusion.sum(0) / confusion.sum()).numpy()
        if (bins := measured.get("calibration")) is not None:
            row["bins"] = bins.flatten().numpy()
        self.evaluations.append(row)
        self.evaluated, self.loss_sum, self.loss_count = {}, torch.zeros_like(self.loss_sum), 0
        if is_due(len(self.evaluations)):
            self._diagnose(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what the epoch before has shown, after its line, and write the file."""
        self._tell(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Diagnose the whole run; the run's closing lines say what was found."""
        if self.findings.update(self.history):
            self._show_findings(trainer)
        self._write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say where a run that diverged was first not finite, and write what was recorded."""
        if isinstance(exception, Diverged) and "task" in self.facts:
            module, _ = _of_run(trainer, pl_module)
            where = first_not_finite(trainer, module, self.batch)
            step, batch = trainer.global_step + 1, trainer.fit_loop.batch_idx + 1
            self.facts["non_finite"] = {"what": str(exception), "where": where, "step": step, "batch": batch}
            self.untold += self.findings.update(self.history)
            self._tell(trainer)
        if self.steps or self.evaluations or "non_finite" in self.facts:
            self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the series, as tensors."""
        history = self.history
        return {
            "facts": self.facts,
            "steps": {name: torch.from_numpy(column) for name, column in history.steps.items()},
            "evaluations": {name: torch.from_numpy(column) for name, column in history.evaluations.items()},
            "losses": torch.stack(self.losses).cpu() if self.losses else torch.zeros(0),
            "loss_sum": self.loss_sum.cpu(),
            "loss_count": self.loss_count,
            "sample": self.sample.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the series of the run so far."""
        self.resumed = state_dict
        self.steps, self.evaluations = (_rows(state_dict[part]) for part in ("steps", "evaluations"))
        self.losses = [*state_dict["losses"]]
        self.loss_sum, self.loss_count = state_dict["loss_sum"], state_dict["loss_count"]

    @property
    def _score(self) -> str:
        return str(self.facts["headline"]).partition("/")[2]

    def _place(self, trainer: Trainer) -> dict[str, Any]:
        batches = max(1, trainer.fit_loop.batch_idx + 1)
        return {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch + min(1.0, batches / max(1, trainer.num_training_batches)),
            "lr": divergence.learning_rate(trainer),
        }

    def _row(self, trainer: Trainer) -> dict[str, Any]:
        losses = torch.stack([loss.float() for loss in self.losses])
        reduce = trainer.strategy.reduce
        mean, largest = reduce(losses.mean(), reduce_op="mean"), reduce(losses.max(), reduce_op="max")
        return self._place(trainer) | {"loss": float(mean), "loss_max": float(largest), "lr": self.lr}

    def _diagnose(self, trainer: Trainer) -> None:
        self.untold += self.findings.update(self.history)
        stopping = [name for name in self.stop if name in self.findings.found]
        if trainer.strategy.reduce_boolean_decision(bool(stopping), all=False) and not self.stopping_reason_message:
            reason = self.findings.found[stopping[0]].line if stopping else "a finding of another process"
            self.stopping_reason_message = f"stopped by the diagnosis: {reason}"
            trainer.should_stop = True

    def _tell(self, trainer: Trainer) -> None:
        """Print the findings that are new, and show all in TensorBoard."""
        for found in self.untold:
            for line in self._lines(found, trainer):
                log.info("%s", line)
        if self.untold:
            self._show_findings(trainer)
        self.untold = []

    def _show_layers(self, trainer: Trainer) -> None:
        """Show the norms of the last row, of the parameters that are no biases, in TensorBoard."""
        row, facts = self.steps[-1], self.facts
        layers = [i for i, dims in enumerate(facts["dims"]) if dims > 1]
        named = {facts["parameters"][i].removesuffix(".weight"): i for i in layers}
        for logger in _boards(trainer):
            gradients = {name: float(row["grad"][i]) for name, i in named.items()}
            updates = {name: float(row["update"][i] / max(row["weight"][i], TINY)) for name, i in named.items()}
            logger.log_layers(int(row["step"]), gradients, updates)

    def _show_findings(self, trainer: Trainer) -> None:
        for logger in _boards(trainer):
            logger.log_findings(self._report(trainer), trainer.global_step)

    def _report(self, trainer: Trainer) -> list[dict[str, Any]]:
        return self.findings.to_plain(lambda finding: remedies(finding, self.history, _config(trainer)))

    def _lines(self, found: Found, trainer: Trainer) -> list[str]:
        return found.lines(remedies(found.last, self.history, _config(trainer)))

    def _write(self, trainer: Trainer) -> None:
        found = by_severity(self.findings.found.values())
        self.closing_lines = [line for one in found for line in self._lines(one, trainer)]
        if not trainer.is_global_zero:
            return
        self.report = self._report(trainer)
        content = json.dumps({"findings": self.report, "history": self.history.to_plain()}, allow_nan=False)
        files.write(self.folder / names.DIAGNOSIS, content)


def _boards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _config(trainer: Trainer) -> dict[str, Any]:
    return trainer.lightning_module.hparams["config"]


def _validates(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _of_run(trainer: Trainer, module: LightningModule) -> tuple[TrainingModule, ImageDataModule]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, TrainingModule)
    assert isinstance(data, ImageDataModule)
    return module, data


def _rows(columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [{name: column[row].numpy() for name, column in columns.items()} for row in range(count)]
