"""Records the History of a run while it trains."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lossfit.callbacks.layer_norms import LayerNorms
from lossfit.callbacks.run_facts import MEASURED, facts_of
from lossfit.callbacks.training_sample import TrainingSample
from lossfit.data import ImageDataModule
from lossfit.diagnosis import History
from lossfit.training import divergence
from lossfit.training.module import TrainingModule

ROWS = 200  # of steps in a run
FEWEST = 100  # rows in a run whose rows would be fewer than NEAREST steps apart
NEAREST = 10  # steps between two rows; a row costs about a fifth of a step of a small network


class Recorder:
    """The series of a run so far. The methods are called where the hooks of the same names are.

    `facts` is complete, and norms and sample are there, from on_train_start on.

    every_n_steps: how many steps lie between two rows of steps; None for 100 to 200 rows a run. samples: the size of
    the sample of the training split. The series are the same on all ranks, and are part of every checkpoint.
    """

    def __init__(self, every_n_steps: int | None, samples: int) -> None:
        self.every_n_steps, self.samples = every_n_steps, samples
        self.facts: dict[str, Any] = {}
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.losses: list[Tensor] = []  # of the batches since the last row of steps
        self.summed = 0  # how many of them are in loss_sum
        self.loss_sum, self.loss_count = torch.zeros(()), 0  # of batches since the last validation
        self.evaluated: dict[str, Any] = {}  # of the sample, for the validation that is running
        self.lr = 0.0  # of the step that is measured: a schedule steps before the batch ends
        self.restored: Mapping[str, Any] = {}
        self.converted = History.of({}, [], [])  # the rows so far as columns

    @property
    def history(self) -> History:
        """What was recorded so far."""
        steps, evaluations = len(self.converted.steps["step"]), len(self.converted.evaluations["step"])
        new = History.of(self.facts, self.steps[steps:], self.evaluations[evaluations:])
        self.converted = self.converted.joined(new) or History.of(self.facts, self.steps, self.evaluations)
        return self.converted

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the sample; of a new run, evaluate the untrained model."""
        module, data = _of_run(trainer, pl_module)
        every = trainer.val_check_batch or math.inf
        validations = max(1, int(trainer.num_training_batches / every))
        self.norms, self.sample = LayerNorms(module.model), TrainingSample(data, self.samples, validations)
        self.every = self.every_n_steps or spacing(module.total_steps)
        self.loss_sum = self.loss_sum.to(module.device)
        about = {"every_n_steps": self.every, "sample": len(self.sample.target)}
        self.facts = MEASURED | self.facts | facts_of(trainer, module, data) | about
        if self.restored:
            self.sample.load_state_dict(self.restored)
        elif not trainer.global_step:
            self.facts |= self.sample.compare_with_constant(trainer, module)

    def on_before_optimizer_step(self, trainer: Trainer) -> None:
        """Take the gradients of a step that gets a row: the first, and each `every` steps."""
        step = trainer.global_step + 1
        if step == 1 or step % self.every == 0:
            self.norms.before()
            self.lr = divergence.learning_rate(trainer)

    def on_train_batch_end(self, trainer: Trainer, loss: Tensor) -> bool:
        """Keep the loss of a batch, and add a row if the step gets one; return whether it did."""
        self.losses.append(loss)
        if self.norms.gradients is None:
            return False
        losses, reduce = torch.stack(self.losses).float(), trainer.strategy.reduce
        row = {"lr": self.lr, "loss": float(reduce(losses.mean(), reduce_op="mean"))}
        row["loss_max"] = float(reduce(losses.max(), reduce_op="max"))
        self.steps.append(place(trainer) | row | self.norms.after())
        self._sum_losses()
        self.losses, self.summed = [], 0
        return True

    def _sum_losses(self) -> None:
        """Add the losses that are not in `loss_sum` yet."""
        new = self.losses[self.summed :]
        if new:
            self.loss_sum += torch.stack(new).float().sum()
            self.loss_count += len(new)
            self.summed = len(self.losses)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the sample with the weights that the validation has: by now those of an average are in place."""
        self.evaluated, units = self.sample.evaluate(trainer, _of_run(trainer, pl_module)[0])
        self.facts["units"] = units
        self.facts["suspects"] = self.sample.suspects(self.facts["names"])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a row."""
        self._sum_losses()
        measured = _of_run(trainer, pl_module)[0].measured["val"]
        score = str(self.facts["headline"]).partition("/")[2]
        row = place(trainer) | {"lr": divergence.learning_rate(trainer)} | self.evaluated
        row |= {"val_loss": float(measured["loss"]), "val_score": float(measured[score])}
        row["train_loss"] = float(trainer.strategy.reduce(self.loss_sum / max(1, self.loss_count), reduce_op="mean"))
        if "confusion" in measured:
            confusion = measured["confusion"].double().cpu()
            row["recall"] = (confusion.diagonal() / confusion.sum(1)).numpy()
            row["predicted_share"] = (confusion.sum(0) / confusion.sum()).numpy()
        if "calibration" in measured:
            row["bins"] = measured["calibration"].double().cpu().flatten().numpy()
        self.evaluations.append(row)
        self.evaluated, self.loss_sum, self.loss_count = {}, torch.zeros_like(self.loss_sum), 0

    def state_dict(self) -> dict[str, Any]:
        """Return the series, as tensors."""
        history = self.history
        return {
            "facts": self.facts,
            "steps": {name: torch.from_numpy(column) for name, column in history.steps.items()},
            "evaluations": {name: torch.from_numpy(column) for name, column in history.evaluations.items()},
            "sample": self.sample.state_dict(),
        }

    def rank_state(self) -> dict[str, Any]:
        """Return the losses since the last rows, which differ among ranks."""
        losses = torch.stack(self.losses).cpu() if self.losses else torch.zeros(0)
        sums = {"loss_sum": self.loss_sum.cpu(), "loss_count": self.loss_count, "summed": self.summed}
        return {"losses": losses, **sums}

    def load_rank_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `rank_state` returned on this rank, while the training starts."""
        device = self.loss_sum.device
        self.losses = [*state["losses"].to(device)]
        self.loss_sum, self.loss_count = state["loss_sum"].to(device), state["loss_count"]
        self.summed = state.get("summed", len(self.losses))  # not in older checkpoints

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the series of the run so far."""
        self.facts, self.restored, self.converted = state["facts"], state["sample"], History.of({}, [], [])
        self.steps, self.evaluations = (_rows(state[part]) for part in ("steps", "evaluations"))


def spacing(total_steps: int) -> int:
    """Return how many steps lie between two rows: of a short run fewer, so that it has at least 100 rows."""
    return max(total_steps // ROWS, min(NEAREST, total_steps // FEWEST), 1)


def _of_run(trainer: Trainer, module: LightningModule) -> tuple[TrainingModule, ImageDataModule]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, TrainingModule)
    assert isinstance(data, ImageDataModule)
    return module, data


def place(trainer: Trainer) -> dict[str, Any]:
    """Return where the training is: step and epoch."""
    batches = trainer.fit_loop.batch_idx + 1
    return {
        "step": trainer.global_step,
        "epoch": trainer.current_epoch + min(1.0, max(1, batches) / max(1, trainer.num_training_batches)),
    }


def _rows(columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    arrays = {name: column.numpy() for name, column in columns.items()}
    return [{name: array[row] for name, array in arrays.items()} for row in range(count)]
