"""Muon for matrices and kernels with AdamW for the rest, as one optimizer with one state."""

from collections.abc import Callable
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.optimizer import ParamsT

from lossfit.optim.groups import as_groups, call_closure
from lossfit.ranges import Count, From0Below1, NonNegative, checked


class Muon(Optimizer):
    """Step a matrix by its momentum made orthogonal, so that all directions move alike, and vectors by AdamW.

    m <- momentum m + (1 - momentum) g, n = momentum m + (1 - momentum) g (Nesterov's look ahead; n = m without it),
    W <- (1 - lr wd) W - lr sqrt(max(1, rows / columns)) orth(n), where orth brings all singular values near 1 by
    `ns_steps` Newton-Schulz steps in bfloat16; three are enough for kernels of small networks. A kernel (out, in,
    height, width) is used as the matrix (out, in height width), which torch.optim.Muon refuses. lr is of the matrices,
    and much the same for all networks; adamw_lr, betas and eps are of the vectors: biases, gains, and tensors with one
    axis longer than 1. head_lr: the learning rate with which AdamW steps the matrix of the model's last nn.Linear, too,
    if the model has other matrices; null to use it as the other matrices. Needs few epochs, and somewhat more time for
    a step (Jordan 2024, kellerjordan.github.io/posts/muon; head as in cifar10-airbench).
    """

    @checked
    def __init__(
        self,
        params: ParamsT,
        lr: NonNegative = 0.2,
        momentum: From0Below1 = 0.6,
        nesterov: bool = True,
        weight_decay: NonNegative = 0.01,
        adamw_lr: NonNegative = 0.01,
        betas: tuple[From0Below1, From0Below1] = (0.9, 0.999),
        eps: NonNegative = 1e-8,
        ns_steps: Count = 3,
        head_lr: NonNegative | None = 0.01,
    ) -> None:
        groups = [dict(group) for group in as_groups(params)]
        heads = [group for group in groups if group.pop("is_head", False)] if head_lr is not None else []
        if all(_is_vector(p) for group in groups if not any(group is head for head in heads) for p in group["params"]):
            heads = []  # the last layer has the model's only matrix
        groups = [group for group in groups if not any(group is head for head in heads)]
        others = [{**group, "params": [p for p in group["params"] if _is_vector(p)]} for group in groups]
        others += [{"lr": head_lr} | head for head in heads]
        self._adamw = AdamW(others, lr=adamw_lr, betas=betas, eps=eps, weight_decay=weight_decay)
        own = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "ns_steps": ns_steps}
        matrices = [own | group | {"params": [p for p in group["params"] if not _is_vector(p)]} for group in groups]
        every = [*matrices, *self._adamw.param_groups]
        super().__init__([group for group in every if group["params"]], {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a saved state; those of older files lack a newer option."""
        super().__setstate__(state)
        for group in self.param_groups:
            if "betas" not in group:
                group.setdefault("ns_steps", 5)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take one step; return the closure's loss."""
        loss = call_closure(closure)
        # AdamW uses this optimizer's state and groups, so that one state dict holds everything
        self._adamw.state = self.state
        self._adamw.param_groups = [group for group in self.param_groups if "betas" in group]
        self._adamw.step()
        for group in self.param_groups:
            if "betas" not in group:
                self._step_matrices(group)
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for p in group["params"]:
            if p.grad is None:
                continue
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffer = self.state[p]["momentum_buffer"]
            buffer.lerp_(p.grad, 1 - momentum)
            ahead = p.grad.lerp(buffer, momentum) if group["nesterov"] else buffer
            matrix = ahead.flatten(1)
            size = lr * sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))
            p.mul_(1 - lr * group["weight_decay"])
            p.add_(orthogonalised(matrix, group["ns_steps"]).view_as(p), alpha=-size)


def _is_vector(p: Tensor) -> bool:
    return p.numel() == max(p.shape, default=1)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return a matrix (rows, columns) with its singular values brought to between about 0.7 and 1.2 by five steps.

    They are Newton-Schulz steps in bfloat16 with Keller Jordan's coefficients, which raise small singular values fast
    and bring the others near 1, not exactly to 1.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x if wide else x.T).to(matrix.dtype)
