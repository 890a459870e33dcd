"""Pictures for TensorBoard: the augmented training images, and what the task draws of the test split."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from lossfit.ranges import Count, checked
from lossfit.training.module import Batch, TrainingModule


class Pictures(Callback):
    """Adds `samples` images of the first training batch, as the model gets them, and the task's pictures of the test:
    for classes the confusion matrix.

    Does nothing without a TensorBoard logger.
    """

    @checked
    def __init__(self, samples: Count = 64) -> None:
        self.samples = samples

    @rank_zero_only
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Add the images of the first batch."""
        writer = _writer(trainer)
        if trainer.global_step == 0 and batch_idx == 0 and writer is not None:
            images = batch[0][: self.samples].float().cpu()
            writer.add_image("train/images", make_grid(images, nrow=16, normalize=True, padding=1), 0)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the pictures of the test."""
        writer = _writer(trainer)
        if writer is not None and isinstance(pl_module, TrainingModule):
            for name, figure in pl_module.task.figures(pl_module.measured["test"]).items():
                writer.add_figure(f"test/{name}", figure, trainer.global_step)


def _writer(trainer: Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None
