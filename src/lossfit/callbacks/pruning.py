"""A trial of a search that is worse than the others were is ended early."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Pruning(Callback):
    """Reports a validation metric to the study that the run is a trial of, and stops the run if the study says so.

    save_dir: the run's folder, whose name is the trial's number, with the study in the folder above. pruner: one of
    Optuna's. All ranks stop together, after the epoch. A run whose trial is over is trained on as any other.
    """

    def __init__(self, save_dir: str, monitor: str, pruner: Any) -> None:
        self.folder = Path(save_dir)
        self.monitor, self.pruner = monitor, pruner
        self.pruned = False
        self.stopping_reason_message: str | None = None  # as Lightning's EarlyStopping names it
        self.trial: Any = None
        self.validated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the trial."""
        if trainer.is_global_zero:
            from lossfit import optuna_study  # Optuna is an extra

            self.trial = optuna_study.trial(self.folder, self.pruner)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to report."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch and ask."""
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
