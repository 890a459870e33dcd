"""How an optimizer differs from the usual one, for the code that trains with it."""

from dataclasses import dataclass

from torch.optim import Optimizer


@dataclass(frozen=True)
class Traits:
    """The traits of an optimizer class. A class that differs from these defaults has its own as the attribute `traits`.

    uses_lr_schedule: whether changes of its lr have the usual effect. averages_weights: whether an average of the
    weights is validated and saved; the optimizer then has `train()`, `eval()` and `evaluating`, which swap its own
    weights and the average in the model. finds_step_sizes: whether it chooses the size of its steps itself, so that a
    range test of the lr has no meaning.
    """

    uses_lr_schedule: bool = True
    averages_weights: bool = False
    finds_step_sizes: bool = False


def traits(optimizer: Optimizer) -> Traits:
    """Return the traits of an optimizer."""
    return getattr(optimizer, "traits", Traits())
