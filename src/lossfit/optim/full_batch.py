"""torch's optimizers that compare one step's loss or gradient with the last one's, and so need the same data at each.

Every mini-batch is a new function to them: they are refused with more than one batch an epoch unless asked for.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from lossfit.optim.groups import as_groups
from lossfit.optim.traits import Traits


class LBFGS(torch.optim.LBFGS):
    """Quasi-Newton steps with a line search (Liu and Nocedal 1989): many passes over the data a step, few steps.

    max_iter: passes a step at most; history_size: gradients kept; line_search_fn: "strong_wolfe" or null for steps of
    lr. Knows no parameter groups and no weight decay. For small models on all data at once, without dropout and
    augmentation, which change the function too.
    """

    traits = Traits(finds_step_sizes=True)

    def __init__(
        self,
        params: ParamsT,
        batches_per_epoch: int,
        mini_batches: bool = False,
        lr: float = 1.0,
        max_iter: int = 20,
        history_size: int = 10,
        line_search_fn: str | None = "strong_wolfe",
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
    ) -> None:
        _refuse_mini_batches(batches_per_epoch, mini_batches)
        if line_search_fn not in ("strong_wolfe", None):
            raise ValueError(f"line_search_fn must be strong_wolfe or null, got {line_search_fn}")
        for name, value in (("max_iter", max_iter), ("history_size", history_size)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
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
        """Take one step of up to max_iter passes; return the loss at its start."""

        def shared() -> Any:
            loss = closure()
            for p in self.param_groups[0]["params"]:  # flattened as views, which channels_last gradients do not allow
                p.grad = None if p.grad is None else p.grad.contiguous()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                loss = loss.detach().clone()  # all ranks must search along the same line
                torch.distributed.all_reduce(loss)
                loss /= torch.distributed.get_world_size()
            return loss

        return super().step(shared)


class Rprop(torch.optim.Rprop):
    """A step size for each weight that grows while its gradient keeps its sign (Riedmiller and Braun 1993).

    lr: the first step size, and no later one's, so that a schedule is lost on it; etas: factors of a changed and of a
    kept sign; step_sizes: their bounds. Has no weight decay. With mini-batches signs change by chance and the steps
    shrink to nothing: rmsprop is its form for them.
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
            f"at each step; take data.batch_size=all data.augment=null, or set it to go on all the same"
        )
