"""The norms of each parameter, its gradient and its update in one step."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn


class LayerNorms:
    """Measures one optimizer step of a model: `before` it with its gradients there, `after` it.

    Norms are Euclidean. The gradients are those before clipping. Under distributed training they are the mean over the
    ranks, so that all ranks measure the same.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = list(model.parameters())
        self.gradients: Tensor | None = None  # (P,) norms; None before a step is measured
        self.start: list[Tensor] = []

    def before(self) -> None:
        """Take the gradients and the weights. Of several calls for one step the first counts, as with LBFGS."""
        if self.gradients is None:
            self.gradients = _norms(parameter.grad for parameter in self.parameters)
            self.start = [parameter.detach().clone() for parameter in self.parameters]

    def after(self) -> dict[str, np.ndarray | float]:
        """Return the columns grad_norm, grad, weight and update of a History's steps."""
        assert self.gradients is not None
        changes = (now.detach() - start for now, start in zip(self.parameters, self.start, strict=True))
        found = torch.stack([self.gradients, _norms(self.start), _norms(changes)]).cpu().double().numpy()
        self.gradients, self.start = None, []
        grad, weight, update = found
        return {"grad_norm": float(np.sqrt(np.nansum(grad**2))), "grad": grad, "weight": weight, "update": update}


def _norms(tensors: Iterable[Tensor | None]) -> Tensor:
    """Return the norm of each tensor (P,), NaN for None."""
    norms = [None if tensor is None else torch.linalg.vector_norm(tensor.detach().float()) for tensor in tensors]
    like = next((norm for norm in norms if norm is not None), torch.zeros(()))
    return torch.stack([like.new_full((), torch.nan) if norm is None else norm for norm in norms])
