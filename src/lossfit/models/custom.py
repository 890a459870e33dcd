"""A model of the user's own, named by its import path."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from lossfit.own_code import make


def custom_model(
    function: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build what `function`, an import path such as my_models.Net, gives: an nn.Module, or a function that returns one.

    It takes float images (N, C, H, W) and returns logits (N, num_classes). options: its keyword arguments; num_classes
    and image_shape (C, H, W) are added where it has arguments of these names. The module may lie in the folder that the
    command is run from.
    """
    model = make(function, options, num_classes=num_classes, image_shape=image_shape)
    if not isinstance(model, nn.Module):
        raise ValueError(f"function={function} must give an nn.Module, got {type(model).__name__}")
    return model
