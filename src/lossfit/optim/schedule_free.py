"""Optimizers that need no schedule: they average the weights of all steps instead of making smaller steps (2405.15682).

There are three sequences of weights: z takes plain steps, x is the average of all z and the result of the training,
and the gradient is computed between them, at y = (1 - b) z + b x. So the model must hold y in training, and x when it
is evaluated or saved: train() and eval() put them there. Both z and x are kept, so that swapping loses nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from lossfit.optim.groups import call_closure
from lossfit.optim.traits import Traits
from lossfit.ranges import From0Below1, NonNegative, checked


class ScheduleFree(Optimizer):
    """The part that both share. A subclass defines `_directions`; its groups hold b as `average`.

    Weights count in the average by the square of their learning rate, so that those of the warm-up count less. Use it
    with scheduler=none, with or without warmup. The running statistics of batch norm are of y, which is close to x for
    b near 1.
    """

    traits = Traits(uses_lr_schedule=False, averages_weights=True)
    evaluating = False

    def _directions(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        """Return new tensors: the step of z for each parameter, at learning rate 1."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; return the closure's loss. Raises RuntimeError between eval() and train()."""
        if self.evaluating:
            raise RuntimeError("the weights are the average after eval(): call train() before a step")
        loss = call_closure(closure)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for p in parameters:
                if "z" not in self.state[p]:
                    self.state[p] |= {"z": p.detach().clone(), "x": p.detach().clone()}
            lr = group["lr"]
            group["largest_lr"] = max(lr, group.get("largest_lr", 0.0))
            group["steps"] = group.get("steps", 0) + 1
            weight = group["largest_lr"] ** 2
            group["total"] = group.get("total", 0.0) + weight
            z, x = ([self.state[p][name] for p in parameters] for name in "zx")
            directions = self._directions(group, parameters)
            torch._foreach_add_(directions, parameters, alpha=group["weight_decay"])
            torch._foreach_add_(z, directions, alpha=-lr)
            torch._foreach_lerp_(x, z, weight / group["total"] if weight else 0.0)
            torch._foreach_copy_(parameters, torch._foreach_lerp(x, z, 1 - group["average"]))
        return loss

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average x into the model."""
        self.evaluating = True
        for _, p in self._with_state():
            p.copy_(self.state[p]["x"])

    @torch.no_grad()
    def train(self) -> None:
        """Put y, where the next gradient is computed, into the model."""
        self.evaluating = False
        for group, p in self._with_state():
            p.copy_(self.state[p]["x"].lerp(self.state[p]["z"], 1 - group["average"]))

    def _with_state(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"] if "z" in self.state[p]]


class ScheduleFreeSGD(ScheduleFree):
    """z <- z - lr (g + wd y): gradient descent with the average in place of momentum and schedule.

    lr is 10 to 50 times that of SGD. momentum: b, the share of the average in y, from 0 to below 1.
    """

    @checked
    def __init__(
        self, params: ParamsT, lr: NonNegative = 1.0, momentum: From0Below1 = 0.9, weight_decay: NonNegative = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "average": momentum, "weight_decay": weight_decay})

    def _directions(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        return [p.grad.clone() for p in parameters if p.grad is not None]


class ScheduleFreeAdamW(ScheduleFree):
    """z <- z - lr (g / (sqrt(v) + eps) + wd y), v the corrected mean of g^2: AdamW with the average for momentum.

    betas: b, the share of the average in y, and the decay of v. lr is 1 to 10 times that of AdamW.
    """

    @checked
    def __init__(
        self,
        params: ParamsT,
        lr: NonNegative = 2.5e-3,
        betas: tuple[From0Below1, From0Below1] = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        weight_decay: NonNegative = 0.0,
    ) -> None:
        defaults = {"lr": lr, "average": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _directions(self, group: dict[str, Any], parameters: list[Tensor]) -> list[Tensor]:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if "exp_avg_sq" not in self.state[p]:
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        torch._foreach_mul_(squares, group["beta2"])
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["beta2"])
        sizes = torch._foreach_div(squares, 1 - group["beta2"] ** group["steps"])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, group["eps"])
        return list(torch._foreach_div(gradients, sizes))
