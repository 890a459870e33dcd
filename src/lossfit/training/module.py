"""The LightningModule: a model with its loss, optimizer and schedule, which are passed in as objects."""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import Metric

from lossfit.data import views
from lossfit.losses.loss import Loss
from lossfit.optim import make_optimizer, traits
from lossfit.runs import checkpoint_schema
from lossfit.tasks.evaluation import Evaluation
from lossfit.tasks.task import Task
from lossfit.training import divergence, lightning_internals
from lossfit.training.accumulation import share_of_window
from lossfit.training.step_costs import log_step

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) float, target: see the task, or mixed (N, C) float

LOGGED_VALUES = 20  # of each parameter of the loss


class TrainingModule(LightningModule):
    """Trains and evaluates `model`, whose outputs (N, K) are what `task` says.

    optimizer is applied to parameter groups; scheduler to the optimizer and total_steps. hparams is saved in every
    checkpoint: the plain values of a runs.checkpoint_schema.Description. measured has what the task's Evaluation
    computed of each split the last time. tta: the views of each image over which the test is averaged.

    Logged once an epoch: train/loss, the task's train_metric, and the metrics of its Evaluation and each of `metrics`
    by its name, for val and test; train/loss.NAME for the loss's own parameters; train/loss_step and train/lr_step
    every log_every_n_steps. The training sums stay on the device until the epoch ends, so that no step waits for them.

    Raises Diverged when the loss of a step or of the validation, or a weight to be saved, is not finite: immediately
    on one processor, within divergence.CHECK_EVERY steps on other devices and among ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: partial[Optimizer],
        scheduler: Callable[..., dict[str, Any]],
        hparams: dict[str, Any],
        task: Task,
        metrics: Mapping[str, Metric] | None = None,
        tta: views.Kind | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(hparams)
        self.model, self.loss = model, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.task, self.tta = task, tta
        self.val_evaluation, self.test_evaluation = task.evaluation(), task.evaluation()
        self.val_metrics = nn.ModuleDict(dict(metrics or {}))
        self.test_metrics = deepcopy(self.val_metrics)
        self.measured: dict[str, dict[str, Tensor]] = {}  # by split
        self.total_steps = 1
        self.train_sums, self.train_count = torch.zeros(2), 0  # of loss and train_metric, and of samples
        self.last_counted_batch = -1  # the last batch in these sums
        self.last_loss = torch.zeros(())  # of this batch
        self.logged_step, self.logged_loss = -1, math.nan  # of the last step that was logged

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K) outputs."""
        return self.model(images)

    def on_fit_start(self) -> None:
        """Give each rank its own dropout masks; the weights are the same already."""
        if self.trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_train_start(self) -> None:
        """Train a schedule-free optimizer's own weights; its average is evaluated, saved and left in the model.

        A resumed run whose max_epochs was changed continues with the learning rate of the new schedule.
        """
        self._swap_in_average(False)
        for config in self.trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):
                factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
                for group, lr, factor in zip(schedule.optimizer.param_groups, schedule.base_lrs, factors, strict=True):
                    group["lr"] = lr * factor

    def on_train_end(self) -> None:
        """Leave the average in the model."""
        self._swap_in_average(True)

    def on_train_epoch_start(self) -> None:
        """Start the epoch's sums at zero."""
        self.train_sums = torch.zeros(2, device=self.device)
        self.train_count, self.last_counted_batch = 0, -1

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch and add it to the epoch's sums."""
        images, target = batch
        again = batch_idx == self.last_counted_batch  # LBFGS computes the loss several times a step
        if not again:
            self.loss.set_progress(min(1.0, self.trainer.global_step / self.total_steps))
        outputs = self.model(images)
        with torch.no_grad():  # before the loss, which may change its arguments in place
            train_sum = self.task.train_sum(outputs, target)
        loss = self.loss(outputs, self.task.encode(target))
        if not again:
            self.last_counted_batch, self.last_loss = batch_idx, loss.detach()
            loss_sum, metric_sum = self.train_sums.unbind()  # views
            loss_sum.add_(self.last_loss, alpha=len(target))
            metric_sum.add_(train_sum)
            self.train_count += len(target)
            divergence.check_step(self.trainer, self.last_loss, loss_sum, batch_idx)
        share = share_of_window(self.trainer, batch_idx)
        return loss if share == 1 else loss * share

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log single steps."""
        every, step = self.trainer.log_every_n_steps, self.trainer.global_step  # type: ignore[attr-defined]
        if every and (step + 1) % every == 0 and step != self.logged_step:  # LBFGS comes here several times a step
            self.logged_step, self.logged_loss = step, float(self.last_loss)
            values = {"train/loss_step": self.logged_loss, "train/lr_step": divergence.learning_rate(self.trainer)}
            log_step(self.trainer, values)

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch over all ranks, and the parameters of the loss."""
        count = torch.full((1,), self.train_count, device=self.device)
        totals = self.trainer.strategy.reduce(torch.cat([self.train_sums, count]), reduce_op="sum")
        assert isinstance(totals, Tensor)
        if not math.isfinite(totals[0]):
            divergence.fail(self.trainer, f"the training loss was not finite in epoch {self.trainer.current_epoch + 1}")
        self._log({"train/loss": totals[0] / totals[2]})
        if self.task.train_metric:
            self._log({f"train/{self.task.train_metric}": totals[1] / totals[2]})
        for name, parameter in self.loss.named_parameters():
            values = parameter.detach().flatten()[:LOGGED_VALUES].float()
            shown = f"train/loss.{name.removeprefix('module.')}"
            self._log({shown if len(values) == 1 else f"{shown}.{i}": value for i, value in enumerate(values)})

    def on_validation_start(self) -> None:
        """Evaluate a schedule-free optimizer's average; outside of training, the weights as they are."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._swap_in_average(True)

    def on_validation_end(self) -> None:
        """Restore the weights that are trained."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._swap_in_average(False)

    def on_validation_epoch_start(self) -> None:
        """Send rank 0's running statistics, which are saved, to all ranks, so that all evaluate the same model."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation sums."""
        self._evaluate(self.val_evaluation, self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_evaluation("val", self.val_evaluation, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to the test sums; return the outputs, for callbacks."""
        return self._evaluate(self.test_evaluation, self.test_metrics, batch, self.tta)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_evaluation("test", self.test_evaluation, self.test_metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the metrics with the weights; raise Diverged if a weight is not finite."""
        divergence.check_weights(self.trainer, self)
        epochs = lightning_internals.epochs_done(self.trainer)
        checkpoint_schema.add_metrics(checkpoint, epochs, self.trainer.callback_metrics)
        if any(not optimizer.evaluating for optimizer in self._averaging()):  # a checkpoint between validations
            self._swap_in_average(True)
            checkpoint["state_dict"] = {name: tensor.clone() for name, tensor in self.state_dict().items()}
            self._swap_in_average(False)

    def configure_optimizers(self) -> Any:
        """Apply the optimizer to the parameter groups and the schedule to the trainer's number of steps."""
        # Lightning refuses fused steps together with clipping of scaled gradients
        fused = not (lightning_internals.uses_grad_scaler(self.trainer) and self.trainer.gradient_clip_val)
        optimizer = make_optimizer(self.optimizer, self.model, self.loss, allow_fused=fused)
        total_steps = self.trainer.estimated_stepping_batches
        self.total_steps = max(1, int(total_steps))
        scheduler = self.scheduler(optimizer, total_steps=int(total_steps))
        if "monitor" in scheduler:
            scheduler["frequency"] = self.trainer.check_val_every_n_epoch
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def rank_state(self) -> dict[str, Any]:
        """Return the sums of the epoch so far, which differ among ranks, for a checkpoint."""
        return {"train_sums": self.train_sums.cpu(), "train_count": self.train_count}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `rank_state` returned on this rank."""
        self.train_sums, self.train_count = state["train_sums"].to(self.device), state["train_count"]

    def _averaging(self) -> list[Any]:
        """Return the optimizers whose average is what is evaluated."""
        return [optimizer for optimizer in self.trainer.optimizers if traits(optimizer).averages_weights]

    def _swap_in_average(self, average: bool) -> None:
        for optimizer in self._averaging():
            optimizer.eval() if average else optimizer.train()

    @staticmethod
    def _metrics(modules: nn.ModuleDict) -> dict[str, Metric]:
        return dict(modules.items())  # type: ignore[arg-type]

    def _evaluate(
        self, evaluation: Evaluation, metrics: nn.ModuleDict, batch: Batch, tta: views.Kind | None = None
    ) -> Tensor:
        images, target = batch
        with torch.autocast(images.device.type, enabled=False):  # in float32, as the trained model is used
            outputs = views.outputs_for(self.model, images, tta, self.task)
        # a loss may change its arguments in place
        evaluation.update(self.loss(outputs.clone(), self.task.encode(target.clone())), outputs, target)
        for metric in self._metrics(metrics).values():
            metric.update(outputs, target)
        return outputs

    def _log_evaluation(self, split: str, evaluation: Evaluation, metrics: nn.ModuleDict) -> None:
        values = evaluation.compute()
        evaluation.reset()
        self.measured[split] = values
        values = {name: value for name, value in values.items() if name not in evaluation.drawn}
        for name in {"loss", "nll", "mae"} & values.keys():
            if self.trainer.state.fn == TrainerFn.FITTING and not math.isfinite(values[name]):
                what = f"{split}/{name} was {values[name]:g} after step {self.trainer.global_step}"
                divergence.fail(self.trainer, what)
        for name, metric in self._metrics(metrics).items():
            values[name] = metric.compute()
            metric.reset()
        self._log({f"{split}/{name}": value for name, value in values.items()})

    def _log(self, values: dict[str, Tensor]) -> None:
        """Log values that are the same on all ranks."""
        self.log_dict(values, prog_bar=True)
