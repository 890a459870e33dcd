"""Pictures for TensorBoard: the augmented training images, and the confusion matrix of the test split."""

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

MOST_NUMBERED = 20  # classes up to which a confusion matrix has numbers in its cells


class Pictures(Callback):
    """Adds `samples` images of the first training batch, as the model gets them, and the test's confusion matrix.

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
    """Draw counts (C, C), rows the true class, columns the predicted one, as percentages of each row.

    For ten classes the picture is 450 pixels wide, so that a card of TensorBoard shows it in almost its full size.
    """
    counts = confusion.cpu().double()
    percent = (100 * counts / counts.sum(1, keepdim=True).clamp(min=1)).numpy()
    size = max(3.0, 1.5 + 0.3 * len(class_names))
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(class_names)), class_names, rotation=90)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("% of the true class", fontsize="medium")
    for row, values in enumerate(percent if len(class_names) <= MOST_NUMBERED else ()):
        for column, value in enumerate(values):
            if value >= 0.5:
                color = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    return figure


def _writer(trainer: Trainer) -> SummaryWriter | None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger.experiment
    return None
