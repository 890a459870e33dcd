"""torch's optimizers that compare the loss or gradient of two steps, and so need the same data at each step.

Each mini-batch defines another function. With more than one batch an epoch they raise ValueError unless
mini_batches=true.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.optim.optimizer import ParamsT

from lossfit.optim.groups import as_groups
from lossfit.optim.traits import Traits
from lossfit.ranges import Count, checked


class LBFGS(torch.optim.LBFGS):
    """Quasi-Newton steps with a line search (Liu and Nocedal 1989): few steps, each of many passes over the data.

    max_iter: the largest number of passes in a step. history_size: how many gradients are kept. line_search_fn:
    "strong_wolfe", or null for steps of size lr. Has no parameter groups and no weight decay. For small models and
    small data in one batch, without dropout and augmentation, which change the function too.
    """

    traits = Traits(finds_step_sizes=True)

    @checked
    def __init__(
        self,
        params: ParamsT,
        batches_per_epoch: int,
        mini_batches: bool = False,
        lr: float = 1.0,
        max_iter: Count = 20,
        history_size: Count = 10,
        line_search_fn: Literal["strong_wolfe"] | None = "strong_wolfe",
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
    ) -> None:
        _refuse_mini_batches(batches_per_epoch, mini_batches)
        super().__init__(
            [p for group in as_groups(params) for p in group["params"]],
            lr=lr,
            max_iter=max_iter,
            history_size=history_size,
            line_search_fn=line_search_fn,
            tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change,
        )

    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Take one step of at most max_iter passes; return the loss before it."""

        def closure_of_all_ranks() -> Any:
            loss = closure()
            for p in self.param_groups[0]["params"]:  # torch calls view(-1), which channels_last gradients do not allow
                p.grad = None if p.grad is None else p.grad.contiguous()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                loss = loss.detach().clone()  # all ranks must take the same steps
                torch.distributed.all_reduce(loss)
                loss /= torch.distributed.get_world_size()
            return loss

        return super().step(closure_of_all_ranks)


class Rprop(torch.optim.Rprop):
    """A step size for each weight, which grows while its gradient keeps its sign (Riedmiller and Braun 1993).

    lr: the first step size; it does not affect later ones, so that a schedule has no effect. etas: the factors after a
    changed and after a kept sign. step_sizes: the least and the largest. Has no weight decay. With mini-batches signs
    change by chance and the steps shrink to the least: use rmsprop for them.
    """

    traits = Traits(uses_lr_schedule=False, finds_step_sizes=True)

    def __init__(
        self,
        params: ParamsT,
        batches_per_epoch: int,
        mini_batches: bool = False,
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
    ) -> None:
        _refuse_mini_batches(batches_per_epoch, mini_batches)
        super().__init__(params, lr=lr, etas=etas, step_sizes=step_sizes)


def _refuse_mini_batches(batches_per_epoch: int, mini_batches: bool) -> None:
    if batches_per_epoch > 1 and not mini_batches:
        raise ValueError(
            f"mini_batches must be true for {batches_per_epoch} batches an epoch: this optimizer needs the same data "
            f"at each step; use data.batch_size=all data.augment=null, or set it to use mini-batches all the same"
        )
