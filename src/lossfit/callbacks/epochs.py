"""Progress: one line an epoch with the time that is left, and a bar where there is a terminal to draw it on."""

import logging
import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console

from lossfit import metric_names
from lossfit.ranges import Count, checked

log = logging.getLogger(__name__)


class EpochReport(Callback):
    """Logs train/lr and train/epoch_s (seconds, validation included) and prints a line when an epoch is over."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, for a run that is resumed within an epoch."""
        self.start, self.validated = time.perf_counter(), False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before: only now are all its metrics known."""
        self._report(trainer)
        self.start = time.perf_counter()
        self.validated = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has validation metrics of its own."""
        self.validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the learning rate and the time."""
        self.seconds = time.perf_counter() - self.start
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        pl_module.log_dict({"train/lr": lr, "train/epoch_s": self.seconds})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch's line."""
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        done, last = trainer.current_epoch, trainer.max_epochs
        metrics = trainer.callback_metrics
        if not done or "train/epoch_s" not in metrics:
            return
        shown = [
            name
            for name in metric_names.epoch_line()
            if name in metrics and (self.validated or not name.startswith("val"))
        ]
        values = "  ".join(f"{name} {float(metrics[name]):.4f}" for name in shown)
        of, left = "", ""
        if last and last > 0:
            of = f"/{last}"
            left = f", {(last - done) * self.seconds:.0f} s left" if done < last else ""
        log.info("epoch %d%s  %s  (%.1f s%s)", done, of, values, self.seconds, left)


class ProgressBar(RichProgressBar):
    """Lightning's bar for this epoch, redrawn every `refresh_rate` batches; nothing where output goes to a file."""

    @checked
    def __init__(self, refresh_rate: Count = 10) -> None:
        super().__init__(refresh_rate)
        if not get_console().is_terminal:
            self.disable()
