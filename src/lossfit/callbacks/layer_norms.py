"""The norms of each parameter, its gradient and its update in one step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

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
        self.start: list[Tensor] = []
        sizes = [(parameter.numel(), _rows(parameter).numel()) for parameter in self.parameters]
        self.scale = np.array([(every / max(1, some)) ** 0.5 for every, some in sizes])

    def before(self) -> None:
        """Take the gradients and the weights. Of several calls for one step the first counts, as with LBFGS."""
        if self.gradients is None:
            self.gradients = _norms([parameter.grad for parameter in self.parameters])
            self.start = [_rows(parameter).clone() for parameter in self.parameters]

    def after(self) -> dict[str, np.ndarray | float]:
        """Return the columns grad_norm, grad, weight and update of a History's steps."""
        assert self.gradients is not None
        changes = [_rows(now) - start for now, start in zip(self.parameters, self.start, strict=True)]
        found = torch.stack([self.gradients, _norms(self.start), _norms(changes)]).cpu().double().numpy()
        self.gradients, self.start = None, []
        grad, weight, update = found
        total = float(np.sqrt(np.nansum(grad**2)))
        return {"grad_norm": total, "grad": grad, "weight": weight * self.scale, "update": update * self.scale}


def _rows(parameter: Tensor) -> Tensor:
    """Return the parameter, or of a large one rows at equal distances, together about MOST numbers."""
    step = -(-parameter.numel() // MOST)
    return parameter.detach() if step == 1 or parameter.ndim < 2 else parameter.detach()[::step]


def _norms(tensors: Sequence[Tensor | None]) -> Tensor:
    """Return the norm of each tensor (P,), NaN for None."""
    known = [tensor.detach().float() for tensor in tensors if tensor is not None]
    norms = iter(torch._foreach_norm(known)) if known else iter(())
    like = known[0] if known else torch.zeros(())
    return torch.stack([like.new_full((), torch.nan) if tensor is None else next(norms) for tensor in tensors])
