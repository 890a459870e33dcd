"""Some of the classes of a data set, in an order of their own: `data.classes=[Shirt, Pullover]`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lossfit.errors import did_you_mean


def numbers_of(chosen: Sequence[str | int], names: Sequence[str]) -> list[int]:
    """Return the number of each chosen class among all `names`; raise ValueError for a choice that cannot be made."""
    wanted = [str(name) for name in chosen]  # a command line reads [3, 8] as numbers
    for name in wanted:
        if name not in names:
            raise ValueError(f"classes must be classes of the data set, got {name!r}{did_you_mean(name, names)}")
        if wanted.count(name) > 1:
            raise ValueError(f"classes must be different classes, got {name!r} {wanted.count(name)} times")
    if len(wanted) < 2:
        raise ValueError(f"classes must be null or at least 2 classes, got {wanted}")
    return [list(names).index(name) for name in wanted]


def of_classes(labels: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the ascending positions of the samples that have one of these classes, and their new labels.

    labels: (N,) int64. The new label k stands for the class numbers[k].
    """
    new = torch.full((max(int(labels.max()), *numbers) + 1,), -1)
    new[torch.tensor(numbers)] = torch.arange(len(numbers))
    positions = (new[labels] >= 0).nonzero().squeeze(1)
    return positions, new[labels[positions]]
