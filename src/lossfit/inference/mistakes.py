"""The worst mistakes of a model on a split."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lossfit.data.stores.images import Images
from lossfit.tasks.task import Task


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


def worst_mistakes(
    task: Task, images: Images, outputs: Tensor, target: Tensor, count: int, index: Tensor | None = None
) -> list[Mistake]:
    """Return the mistakes with the largest loss of their own, of a regression the largest errors, the worst first.

    images: of the split. outputs, target: (N, K) and (N, ...), of all its images, or of those with the numbers `index`
    (N,). At most `count`; none where nothing is wrong.
    """
    outputs, target = outputs.cpu(), target.cpu()
    index = torch.arange(len(target)) if index is None else index.cpu()
    chosen = worst(task, outputs, target, count)
    if not len(chosen):
        return []
    outputs, target, index = outputs[chosen], target[chosen], index[chosen]
    pixels = images[index.to(images.device)].cpu()
    answers = task.answers(outputs, target)
    return [Mistake(i, image, *answer) for i, image, answer in zip(index.tolist(), pixels, answers, strict=True)]


def worst(task: Task, outputs: Tensor, target: Tensor, count: int) -> Tensor:
    """Return the rows of the worst mistakes among outputs (N, K), the worst first; of equal ones the first."""
    sizes = task.mistakes(outputs, target)
    order = sizes.argsort(descending=True, stable=True)[:count]
    return order[sizes[order] > 0]
