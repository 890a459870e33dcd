"""lossfit: a template for training on images. Importing the package imports no torch; lossfit.load does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossfit.inference.trained_model import TrainedModel as TrainedModel
    from lossfit.inference.trained_model import load as load

__all__ = ["TrainedModel", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from lossfit.inference import trained_model

        return getattr(trained_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
