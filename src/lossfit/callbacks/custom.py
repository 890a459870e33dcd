"""A callback of the user's own, named by its import path."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback

from lossfit.own_code import make


def custom_callback(
    function: str, class_names: Sequence[str], save_dir: str, options: Mapping[str, Any] | None = None
) -> Callback:
    """Build what `function`, an import path such as my_callbacks.Sounds, gives: a lightning.pytorch.Callback.

    options: its keyword arguments; class_names and save_dir, the run's folder, are added where it has arguments of
    these names. The module may lie in the folder that the command is run from.
    """
    callback = make(function, options, class_names=class_names, save_dir=save_dir)
    if not isinstance(callback, Callback):
        raise ValueError(f"function={function} must give a lightning.pytorch.Callback, got {type(callback).__name__}")
    return callback
