"""What the rest of lossfit needs to know of an optimizer, whichever it is."""

from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class Traits:
    """The traits of an optimizer class; a class whose traits are others than these has them as `traits`.

    uses_lr_schedule: whether a schedule of its lr has the usual effect. averages_weights: whether the weights to use
    are an average; the optimizer then has `train()`, `eval()` and `evaluating`, which swap its own weights and the
    average in the model. finds_step_sizes: whether it chooses the size of its steps itself, so that a range test of the
    lr says nothing.
    """

    uses_lr_schedule: bool = True
    averages_weights: bool = False
    finds_step_sizes: bool = False


def traits(optimizer: Optimizer) -> Traits:
    """Return the traits of an optimizer."""
    return getattr(optimizer, "traits", Traits())
