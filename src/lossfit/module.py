"""The LightningModule: one classifier, one loss, one optimizer, one schedule, all given as live objects."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lossfit.errors import ConfigError
from lossfit.losses.loss import Loss
from lossfit.metrics import Evaluation
from lossfit.optim import make_optimizer
from lossfit.optim.schedule_free import ScheduleFree

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) float, target (N,) int64 or (N, C) float


class Classifier(LightningModule):
    """Trains and evaluates `model`, whose output is logits (N, num_classes).

    optimizer is applied to parameter groups; scheduler to the optimizer and total_steps. hparams is a plain
    dict that goes into every checkpoint: what is needed to build the model again.

    Logged: {train,val,test}/loss and /acc and {val,test}/nll once an epoch (with costs, /cost too),
    train/loss_step and train/lr_step every log_every_n_steps. The training sums stay on the device until the
    epoch ends, so that no step waits for them.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: partial[Optimizer],
        scheduler: Callable[..., dict[str, Any]],
        hparams: dict[str, Any],
        costs: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(hparams)
        self.model, self.loss = model, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.val_evaluation = Evaluation(loss.num_classes, loss.link, costs)
        self.test_evaluation = Evaluation(loss.num_classes, loss.link, costs)
        self.confusion: dict[str, Tensor] = {}  # split -> (C, C), of the last evaluation
        self.train_sums, self.train_count = torch.zeros(2), 0  # of loss and correct answers, and of samples
        self.counted = -1  # the last batch in them

    def __setattr__(self, name: str, value: Any) -> None:
        """Spare Lightning's bookkeeping, some fifty writes a step, nn.Module's search among its parameters."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes) logits."""
        return self.model(images)

    def on_fit_start(self) -> None:
        """Give each rank dropout masks of its own; the weights are the same already."""
        if self.trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_train_start(self) -> None:
        """Train a schedule-free optimizer's own weights; its average is what is evaluated, saved and left.

        A resumed run whose schedule was fitted to another end takes its learning rate from the new one.
        """
        self._hold_average(False)
        for config in self.trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
                for group, lr, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
                    group["lr"] = lr * factor

    def on_train_end(self) -> None:
        """Leave the average in the model."""
        self._hold_average(True)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums at zero."""
        self.train_sums = torch.zeros(2, device=self.device)
        self.train_count, self.counted = 0, -1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and add it to the epoch's sums."""
        images, target = batch
        logits = self.model(images)
        loss = self.loss(logits, target)
        if batch_idx == self.counted:  # a further pass of an optimizer that makes several a step
            return loss
        self.counted = batch_idx
        with torch.no_grad():
            label = target if target.ndim == 1 else target.argmax(1)
            self.train_sums += torch.stack([loss * len(label), (logits.argmax(1) == label).sum()])
            self.train_count += len(label)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:  # the steps that Lightning writes
            self.log("train/loss_step", loss.detach(), prog_bar=True)
            self.log("train/lr_step", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over all ranks."""
        count = torch.full((1,), self.train_count, device=self.device)
        totals = self.trainer.strategy.reduce(torch.cat([self.train_sums, count]), reduce_op="sum")
        assert isinstance(totals, Tensor)
        self._log({"train/loss": totals[0] / totals[2], "train/acc": totals[1] / totals[2]})

    def on_validation_start(self) -> None:
        """Evaluate the average; outside of training, whatever weights there are."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._hold_average(True)

    def on_validation_end(self) -> None:
        """Go on training."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._hold_average(False)

    def on_validation_epoch_start(self) -> None:
        """Let every rank evaluate rank 0's running statistics, which are the ones that a checkpoint holds."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation sums."""
        self._evaluate(self.val_evaluation, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_evaluation("val", self.val_evaluation)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test sums."""
        self._evaluate(self.test_evaluation, batch)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_evaluation("test", self.test_evaluation)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what was measured of them."""
        checkpoint["epochs"] = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        checkpoint["metrics"] = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        if any(not optimizer.evaluating for optimizer in self._schedule_free()):  # a checkpoint between validations
            self._hold_average(True)
            checkpoint["state_dict"] = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            self._hold_average(False)

    def configure_optimizers(self) -> Any:
        """Apply the optimizer to the parameter groups and the schedule to the trainer's number of steps."""
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        fused = not (scaled and self.trainer.gradient_clip_val)  # Lightning refuses these together
        optimizer = make_optimizer(self.optimizer, self.model, allow_fused=fused)
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == float("inf"):
            raise ConfigError("trainer.max_epochs=-1 has no end that a schedule could be fitted to: give a number")
        scheduler = self.scheduler(optimizer, total_steps=int(total_steps))
        if "monitor" in scheduler:
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _schedule_free(self) -> list[ScheduleFree]:
        return [optimizer for optimizer in self.trainer.optimizers if isinstance(optimizer, ScheduleFree)]

    def _hold_average(self, average: bool) -> None:
        for optimizer in self._schedule_free():
            optimizer.eval() if average else optimizer.train()

    def _evaluate(self, metric: Evaluation, batch: Batch) -> None:
        images, target = batch
        logits = self.model(images)
        metric.update(self.loss(logits, target), logits, target)

    def _log_evaluation(self, split: str, metric: Evaluation) -> None:
        values = metric.compute()
        metric.reset()
        self.confusion[split] = values.pop("confusion")
        self._log({f"{split}/{name}": value for name, value in values.items()})

    def _log(self, values: dict[str, Tensor]) -> None:
        """Log what all ranks have the same value of."""
        self.log_dict(values, prog_bar=True)
