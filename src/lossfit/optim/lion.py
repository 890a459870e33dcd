"""Lion: an optimizer whose only state is a momentum, and which steps by its sign."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lossfit.optim.groups import call_closure
from lossfit.ranges import From0Below1, NonNegative, checked


class Lion(Optimizer):
    """Step by the sign of a momentum: w <- (1 - lr wd) w - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g.

    Every weight moves by lr in each step, so that lr is about a tenth of AdamW's and weight_decay (decoupled) ten times
    AdamW's. Needs half of Adam's memory (2302.06675). For large batches: with small ones the sign is mostly noise.
    """

    @checked
    def __init__(
        self,
        params: ParamsT,
        lr: NonNegative = 1e-4,
        betas: tuple[From0Below1, From0Below1] = (0.9, 0.99),
        weight_decay: NonNegative = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; return the closure's loss."""
        loss = call_closure(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters]
            momenta = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
            (b1, b2), lr = group["betas"], group["lr"]
            steps = torch._foreach_lerp(momenta, gradients, 1 - b1)
            torch._foreach_sign_(steps)
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parameters, steps, alpha=-lr)
            torch._foreach_lerp_(momenta, gradients, 1 - b2)
        return loss
