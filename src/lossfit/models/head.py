"""The last layer of every model: features (N, D) -> logits (N, num_classes)."""

import torch.nn.functional as F
from torch import Tensor, nn

from lossfit.ranges import Positive, checked


class CosineLinear(nn.Linear):
    """scale times the cosine of the angle between the features and the weights of each class, without a bias.

    Classes then differ in the direction of their weights only, not in the length, which grows for frequent classes.
    """

    def __init__(self, in_features: int, out_features: int, scale: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, num_classes), within -scale and scale."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


@checked
def head(features: int, num_classes: int, cosine_scale: Positive | None) -> nn.Linear:
    """Return a linear layer, or CosineLinear with cosine_scale, if that is not null (30 is usual)."""
    if cosine_scale is None:
        return nn.Linear(features, num_classes)
    return CosineLinear(features, num_classes, cosine_scale)


def logit_scale(model: nn.Module) -> float | None:
    """Return the scale of a model's cosine head; None if it has another head."""
    return next((module.scale for module in model.modules() if isinstance(module, CosineLinear)), None)
