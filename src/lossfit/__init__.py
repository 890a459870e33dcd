"""lossfit: a template for training on images. Importing the package imports no torch; its functions do when called."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossfit.from_python import TrainedRun as TrainedRun
    from lossfit.from_python import load_data as load_data
    from lossfit.from_python import train as train
    from lossfit.inference.trained_model import TrainedModel as TrainedModel
    from lossfit.inference.trained_model import load as load

__all__ = ["TrainedModel", "TrainedRun", "load", "load_data", "train"]


def __getattr__(name: str) -> Any:
    if name in ("TrainedModel", "load"):
        from lossfit.inference import trained_model

        return getattr(trained_model, name)
    if name in __all__:
        from lossfit import from_python

        return getattr(from_python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
