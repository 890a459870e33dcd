"""Ends a trial of a search early if it is worse than the other trials were at the same epoch."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Pruning(Callback):
    """Reports a validation metric to the run's Optuna study after each epoch, and stops the run if the pruner says so.

    save_dir: the run folder, which is named by the trial's number; the study is in the folder above. pruner: one of
    Optuna's. All ranks stop together. A run whose trial has ended already is trained like any other.
    """

    def __init__(self, save_dir: str, monitor: str, pruner: Any) -> None:
        self.folder = Path(save_dir)
        self.monitor, self.pruner = monitor, pruner
        self.pruned = False
        self.stopping_reason_message: str | None = None  # as Lightning's EarlyStopping names it
        self.trial: Any = None
        self.validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the trial."""
        if trainer.is_global_zero:
            from lossfit import optuna_study  # Optuna is an extra

            self.trial = optuna_study.trial(self.folder, self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the metric was measured in this epoch."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the metric, and stop if the trial is pruned."""
        epoch = trainer.current_epoch + 1
        stop = False
        if self.trial is not None and self.validated:
            self.trial.report(float(trainer.callback_metrics[self.monitor]), epoch)
            stop = epoch != trainer.max_epochs and self.trial.should_prune()
        self.validated = False
        if trainer.strategy.reduce_boolean_decision(stop, all=False):
            self.pruned = True
            self.stopping_reason_message = (
                f"pruned after epoch {epoch}, when {self.monitor} was behind that of other trials"
            )
            trainer.should_stop = True
