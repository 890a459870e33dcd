"""The norms of each parameter, its gradient and its update in one step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

FEWEST_ROWS = 8  # of a large parameter whose rows are looked at
MOST = 2**16  # numbers of a parameter that are looked at for the norms of weights and updates


class LayerNorms:
    """Measures one optimizer step of a model: `before` it with its gradients there, `after` it.

    Norms are Euclidean. The gradients are those before clipping. Under distributed training they are the mean over the
    ranks, so that all ranks measure the same. The norms of the weights and of the update of a large parameter are
    estimated from rows at equal distances.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.gradients: Tensor | None = None  # (P,) norms; None before a step is measured
        self.start: list[Tensor] = []  # the rows before the step; the memory is kept, since it is slow to get
        sizes = [(parameter.numel(), _rows(parameter).numel()) for parameter in self.parameters]
        self.scale = np.array([(every / max(1, some)) ** 0.5 for every, some in sizes])

    def before(self) -> None:
        """Take the gradients and the weights. Of several calls for one step the first counts, as with LBFGS."""
        if self.gradients is None:
            self.gradients = _norms([parameter.grad for parameter in self.parameters])
            now = [_rows(parameter) for parameter in self.parameters]
            if self.start:
                torch._foreach_copy_(self.start, now)
            else:
                self.start = [rows.clone() for rows in now]

    def after(self) -> dict[str, np.ndarray | float]:
        """Return the columns grad_norm, grad, weight and update of a History's steps."""
        assert self.gradients is not None
        weights = _norms(self.start)
        torch._foreach_sub_(self.start, [_rows(parameter) for parameter in self.parameters])
        found = torch.stack([self.gradients, weights, _norms(self.start)]).cpu().double().numpy()
        self.gradients = None
        grad, weight, update = found
        total = float(np.sqrt(np.nansum(grad**2)))
        return {"grad_norm": total, "grad": grad, "weight": weight * self.scale, "update": update * self.scale}


def _rows(parameter: Tensor) -> Tensor:
    """Return the parameter, or of a large one about MOST numbers, rows at equal distances where it has enough."""
    numbers = parameter.detach()
    step = -(-numbers.numel() // MOST)
    if step == 1:
        return numbers
    if numbers.ndim > 1 and len(numbers) >= FEWEST_ROWS * step:
        return numbers[::step]
    return numbers.reshape(-1)[::step] if numbers.is_contiguous() else numbers


def _norms(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return the norm of each tensor (P,), NaN for None."""
    there = [tensor.detach() for tensor in tensors if tensor is not None]
    norms = iter(torch._foreach_norm([_precise(tensor) for tensor in there]) if there else ())
    missing = torch.full((), torch.nan, device=there[0].device if there else None)
    return torch.stack([(missing if tensor is None else next(norms)).float() for tensor in tensors])


def _precise(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
