"""The last layer of every model: features (N, D) -> logits (N, num_classes)."""

import torch.nn.functional as F
from torch import Tensor, nn


class CosineLinear(nn.Linear):
    """scale * cosine of the angle between the features and each class's direction, with no bias.

    Classes then differ in direction only, not in the length of their weights, which a frequent class would make long.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, num_classes), within -scale and scale."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


def head(features: int, num_classes: int, cosine_scale: float | None) -> nn.Linear:
    """Return a linear layer, or a cosine one where cosine_scale > 0 is given (30 is usual)."""
    if cosine_scale is None:
        return nn.Linear(features, num_classes)
    if not 0 < cosine_scale < float("inf"):
        raise ValueError(f"cosine_scale must be > 0 or null, got {cosine_scale}")
    return CosineLinear(features, num_classes, cosine_scale)


def logit_scale(model: nn.Module) -> float | None:
    """Return the scale of a model's cosine head, None if its head is another."""
    return next((module.scale for module in model.modules() if isinstance(module, CosineLinear)), None)
