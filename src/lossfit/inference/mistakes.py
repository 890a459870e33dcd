"""The worst mistakes of a model on a split, and their picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lossfit.data.stores.images import Images
from lossfit.tasks.figures import short
from lossfit.tasks.task import Task

COLUMNS = 4  # of the picture
SIDE, GAP, CAPTION = 1.3, 0.05, 0.42  # of an image in it, between images and below them, in inches


@dataclass(frozen=True)
class Mistake:
    """An image that the model predicts wrongly.

    index: its number in the split. image: its pixels, uint8 (C, H, W). true, predicted: in words. probability: of what
    was predicted; None if it has none. note: what a caption adds, such as "Shirt 0.03", the probability of the true
    class, or "41.2, was 90.0". output: the number of the model's output that the prediction is about.
    """

    index: int
    image: Tensor
    true: str
    predicted: str
    probability: float | None
    note: str
    output: int

    @property
    def caption(self) -> str:
        """Two lines for below the image: what was predicted, and what is true."""
        if self.probability is not None:
            return f"{short(self.predicted, 15)} {self.probability:.2f}\nis {short(self.true, 15)}"
        return f"{short(self.predicted)}\nis {short(self.true, 15)}"


class WorstSoFar:
    """Keeps the `count` samples that are predicted worst, while a split is evaluated in batches.

    rank, world_size: which share of the split comes here; rank r gets the samples r, r + world_size, ... in order.
    """

    def __init__(self, task: Task, count: int, rank: int = 0, world_size: int = 1) -> None:
        self.task, self.count, self.rank, self.world_size = task, count, rank, world_size
        self.seen = 0
        self.rows: tuple[Tensor, ...] = ()  # how wrong, number in the split, outputs, target: `count` of each

    def add(self, outputs: Tensor, target: Tensor) -> None:
        """Add a batch, without waiting for its device."""
        place = torch.arange(self.seen, self.seen + len(target), device=outputs.device)
        rows = self.task.mistakes(outputs, target), self.rank + self.world_size * place, outputs.float(), target
        if not self.rows:  # size 0 stands for none, so that all ranks have as many rows
            self.rows = tuple(row.new_zeros(self.count, *row.shape[1:]) for row in rows)
        both = [torch.cat(pair) for pair in zip(self.rows, rows, strict=True)]
        order = both[0].topk(self.count).indices
        self.rows = tuple(row[order] for row in both)
        self.seen += len(target)

    def mistakes(self, images: Images) -> list[Mistake]:
        """Return the mistakes, the worst first. images: of the split."""
        _, index, outputs, target = self.rows
        return worst_mistakes(self.task, images, outputs, target, self.count, index)


def worst_mistakes(
    task: Task, images: Images, outputs: Tensor, target: Tensor, count: int, index: Tensor | None = None
) -> list[Mistake]:
    """Return the mistakes with the largest loss of their own, of a regression the largest errors, the worst first.

    images: of the split. outputs, target: (N, K) and (N, ...), of all its images, or of those with the numbers `index`
    (N,). At most `count`; none where nothing is wrong.
    """
    outputs, target = outputs.cpu(), target.cpu()
    index = torch.arange(len(target)) if index is None else index.cpu()
    sizes = task.mistakes(outputs, target)
    order = sizes.argsort(descending=True, stable=True)[:count]
    chosen = order[sizes[order] > 0]
    if not len(chosen):
        return []
    outputs, target, index = outputs[chosen], target[chosen], index[chosen]
    pixels = images[index.to(images.device)].cpu()
    answers = task.answers(outputs, target)
    return [Mistake(i, image, *answer) for i, image, answer in zip(index.tolist(), pixels, answers, strict=True)]


def mistakes_figure(mistakes: Sequence[Mistake], maps: Tensor | None = None) -> Figure:
    """Draw mistakes with their captions. maps: (N, H, W) in 0..1 to lay over the images, from `saliency`."""
    rows, columns = -(-len(mistakes) // COLUMNS), min(COLUMNS, len(mistakes))
    width, height = (SIDE + GAP) * columns, (SIDE + CAPTION) * rows
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # one for all images, in inches: axes with ticks of their own are slow
    axes.set_axis_off()
    for number, mistake in enumerate(mistakes):
        row, column = divmod(number, COLUMNS)
        pixels = mistake.image.permute(1, 2, 0).numpy()
        tall, wide = (SIDE * size / max(pixels.shape[:2]) for size in pixels.shape[:2])
        middle, bottom = (SIDE + GAP) * column + SIDE / 2, height - (SIDE + CAPTION) * row - SIDE
        place: dict[str, Any] = {
            "extent": (middle - wide / 2, middle + wide / 2, bottom, bottom + tall),
            "aspect": "auto",
        }
        if pixels.shape[2] == 3:
            axes.imshow(pixels, **place)
        else:
            axes.imshow(pixels[..., 0], cmap="gray", vmin=0, vmax=255, **place)
        if maps is not None:
            axes.imshow(maps[number].cpu().numpy(), cmap="inferno", alpha=0.65, vmin=0, vmax=1, **place)
        axes.text(middle, bottom - 0.03, mistake.caption, fontsize=9.5, parse_math=False, ha="center", va="top")
    axes.set(xlim=(0, width), ylim=(0, height))
    return figure
