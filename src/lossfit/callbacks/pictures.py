"""Pictures for TensorBoard: the augmented training images, and what the model does wrong on the test split."""

import logging
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.utilities.distributed import gather_all_tensors
from torchvision.utils import make_grid

from lossfit.data import ImageDataModule
from lossfit.data.batches import Normalize
from lossfit.inference.mistakes import Mistake, WorstSoFar, mistakes_figure
from lossfit.inference.saliency import multiply_accumulates, occlusion
from lossfit.loggers import tags
from lossfit.ranges import Count, checked
from lossfit.training.module import Batch, TrainingModule

log = logging.getLogger(__name__)

LARGEST_SALIENCY = 2 * 10**11  # multiply-accumulates, which take seconds on a processor


class Pictures(Callback):
    """Adds images of the first training batch, as the model gets them, and pictures of the test.

    These are the task's, for classes the commonest mistakes, the confusion matrix and the reliability diagram; the
    images that are predicted worst; and where in these the model finds what it predicts, if captum is installed. The
    pictures of the test take about a second at the end of the run.

    samples: the images of the first batch. mistakes: the images that are predicted worst; null for none. saliency:
    whether to show where the model looks. It needs about 150 forward passes for each mistake, so it is left out, with a
    line in the log, for a model for which that would be more than LARGEST_SALIENCY multiply-accumulates. Does nothing
    without a TensorBoard logger.
    """

    @checked
    def __init__(self, samples: Count = 64, mistakes: Count | None = 8, saliency: bool = True) -> None:
        self.samples, self.mistakes, self.saliency = samples, mistakes, saliency
        self.worst: WorstSoFar | None = None
        self.found: list[Mistake] = []
        self.maps: Tensor | None = None

    @rank_zero_only
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Add the images of the first batch."""
        if trainer.global_step == 0 and batch_idx == 0 and (writer := _writer(trainer)) is not None:
            images = batch[0][: self.samples].float().cpu()
            writer.add_image(tags.AUGMENTED, make_grid(images, nrow=8, normalize=True, padding=1), 0)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier test."""
        self.worst, self.found, self.maps = None, [], None
        if self.mistakes and trainer.loggers and isinstance(pl_module, TrainingModule):
            self.worst = WorstSoFar(pl_module.task, self.mistakes, trainer.global_rank, trainer.world_size)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the samples that are predicted worst so far."""
        if self.worst is not None:
            self.worst.add(outputs, batch[1])

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the worst of all ranks, and look for what the model sees in them, while it is in eval mode."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if self.worst is None or not isinstance(pl_module, TrainingModule) or not isinstance(data, ImageDataModule):
            return
        if trainer.world_size > 1:
            self.worst.rows = tuple(torch.cat(gather_all_tensors(row)) for row in self.worst.rows)
        if trainer.is_global_zero and _writer(trainer) is not None:
            self.found = self.worst.mistakes(data.splits["test"][0])
            self.maps = self._maps(pl_module, data) if self.saliency and self.found else None

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the pictures of the test."""
        writer = _writer(trainer)
        if writer is None or not isinstance(pl_module, TrainingModule):
            return
        figures = pl_module.task.figures(pl_module.measured["test"])
        if self.found:
            figures["biggest"] = mistakes_figure(self.found)
        if self.maps is not None:
            figures["biggest: where the model looks"] = mistakes_figure(self.found, self.maps)
        for name, figure in figures.items():
            writer.add_figure(tags.picture(name), figure, trainer.global_step)

    def _maps(self, module: TrainingModule, data: ImageDataModule) -> Tensor | None:
        weight = next(module.model.parameters())
        normalize = Normalize(data.mean, data.std).to(module.device)
        images = torch.stack([mistake.image for mistake in self.found]).to(module.device)

        def predict(pixels: Tensor) -> Tensor:  # not a compiled model, which would be compiled again for another size
            outputs: Tensor = module.model.forward(normalize(pixels).to(weight.dtype))
            return outputs

        if multiply_accumulates(predict, images) > LARGEST_SALIENCY:
            log.info(
                "Where the model looks is not shown, since it needs many forward passes of a large model: "
                "python scripts/report.py RUN draws it"
            )
            return None
        return occlusion(
            predict,
            images,
            torch.tensor([mistake.output for mistake in self.found], device=module.device),
            module.task.link,
        )


def _writer(trainer: Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None
