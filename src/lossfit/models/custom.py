"""The user's own model, named by its import path."""

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
    """Build the model that `function` names by an import path such as my_models.Net: an nn.Module class or a function.

    The model takes float images (N, C, H, W) and returns logits (N, num_classes). options: keyword arguments of
    `function`; num_classes and image_shape (C, H, W) are added if it has arguments of these names. The module may be in
    the folder in which the command is run.
    """
    model = make(function, options, num_classes=num_classes, image_shape=image_shape)
    if not isinstance(model, nn.Module):
        raise ValueError(f"function={function} must give an nn.Module, got {type(model).__name__}")
    return model
