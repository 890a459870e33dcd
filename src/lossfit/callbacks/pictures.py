"""Pictures for TensorBoard: what the augmented training images look like, and which classes are confused."""

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from lossfit.ranges import Count, checked
from lossfit.training.classifier import Batch, Classifier


class Pictures(Callback):
    """Shows `samples` images of the first training batch, as the model sees them, and the test's confusion matrix.

    Does nothing without a TensorBoard logger.
    """

    @checked
    def __init__(self, class_names: Sequence[str], samples: Count = 64) -> None:
        self.class_names, self.samples = class_names, samples

    @rank_zero_only
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Add the images of the first batch."""
        writer = _writer(trainer)
        if trainer.global_step == 0 and batch_idx == 0 and writer is not None:
            images = batch[0][: self.samples].float().cpu()
            writer.add_image("train/images", make_grid(images, nrow=16, normalize=True, padding=1), 0)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the confusion matrix."""
        writer = _writer(trainer)
        if writer is not None and isinstance(pl_module, Classifier):
            figure = confusion_figure(pl_module.confusion["test"], self.class_names)
            writer.add_figure("test/confusion", figure, trainer.global_step)


def confusion_figure(confusion: Tensor, class_names: Sequence[str]) -> Figure:
    """Draw counts (C, C), rows the true class, columns the predicted one, shaded by the row's share."""
    counts = confusion.cpu().double()
    share = (counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    size = 2 + 0.6 * len(class_names)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for row, values in enumerate(counts.long().tolist()):
        for column, count in enumerate(values):
            if count:
                dark = share[row, column] > 0.5
                axes.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    return figure


def _writer(trainer: Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None
