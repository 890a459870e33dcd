"""lossfit: a template for training image classifiers. Importing the package imports no torch; lossfit.load does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossfit.inference.classifier import TrainedClassifier as TrainedClassifier
    from lossfit.inference.classifier import load as load

__all__ = ["TrainedClassifier", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from lossfit.inference import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
