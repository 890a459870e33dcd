"""Progress on the console: a line for each epoch with the time left, and in a terminal a bar for the current epoch."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.progress import ProgressColumn, Task
from rich.text import Text

from lossfit.ranges import Count, checked
from lossfit.tasks import metric_names
from lossfit.training.module import TrainingModule

log = logging.getLogger(__name__)

STEP_LOSS = "train/loss_step"


class EpochReport(Callback):
    """Logs train/lr and train/epoch_s (seconds, validation included), and prints a line after each epoch."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock here too, for a run that is resumed within an epoch."""
        self.start, self.validated = time.perf_counter(), False
        self.epochs_timed, self.total_seconds = 0, 0.0  # since this process started to train

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the previous epoch: all its metrics are known only now."""
        self._report(trainer)
        self.start = time.perf_counter()
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has validation metrics."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the learning rate and the time."""
        self.seconds = time.perf_counter() - self.start
        self.epochs_timed += 1
        self.total_seconds += self.seconds
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        pl_module.log_dict({"train/lr": lr, "train/epoch_s": self.seconds})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        done, last = trainer.current_epoch, trainer.max_epochs
        metrics = trainer.callback_metrics
        if not done or "train/epoch_s" not in metrics:
            return
        old = () if self.validated else ("val/",)  # the values of an earlier epoch
        shown = [name for name in metric_names.epoch_line() if name in metrics and not name.startswith(old)]
        values = "  ".join(f"{name} {four_digits(float(metrics[name]))}" for name in shown)
        of, left = "", ""
        if last and last > 0:
            of = f"/{last}"
            if done < last:
                left = f", {(last - done) * self.total_seconds / self.epochs_timed:.0f} s left"
        log.info("epoch %d%s  %s  %.1f s%s", done, of, values, self.seconds, left)


class ProgressBar(RichProgressBar):
    """Lightning's bar for the current epoch, in one row; nothing where the output goes to a file.

    Shows epoch n/N, the batches, their speed and train/loss_step. refresh_rate: how often a second it is drawn.
    """

    @checked
    def __init__(self, refresh_rate: Count = 10) -> None:
        super().__init__(refresh_rate)
        if not get_console().is_terminal:
            self.disable()

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        """Count epochs from 1, and leave out the time left in the epoch: the lines above the bar have the run's."""
        _, bar, batches, _, speed = super().configure_columns(trainer)
        return [_Description(self, trainer), bar, batches, speed]

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return only the loss of a recent step: the other metrics are the previous epoch's, which its line shows."""
        if not isinstance(pl_module, TrainingModule) or pl_module.logged_step < 0:
            return {}
        return {STEP_LOSS: four_digits(pl_module.logged_loss)}


class _Description(ProgressColumn):
    """`epoch n/N`, as in the lines above the bar; Lightning's words for validation and test."""

    def __init__(self, bar: ProgressBar, trainer: Trainer) -> None:
        super().__init__()
        self.bar, self.trainer = bar, trainer

    def render(self, task: Task) -> Text:
        if task.id != self.bar.train_progress_bar_id:
            return Text(task.description)
        last = self.trainer.max_epochs
        return Text(f"epoch {self.trainer.current_epoch + 1}" + (f"/{last}" if last and last > 0 else ""))


def four_digits(value: float) -> str:
    """Return a number with four significant digits: 0.9225, 12.30, 2.183e+29."""
    return f"{value:#.4g}".rstrip(".")
