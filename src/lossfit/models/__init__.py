"""Models: images (N, C, H, W) float, normalised -> logits (N, num_classes).

Every constructor takes num_classes and image_shape (C, H, W), which the data decide, beside its own options.
"""

from lossfit.models.cnn import CNN
from lossfit.models.linear import Linear
from lossfit.models.mlp import MLP
from lossfit.models.resnet import ResNet
from lossfit.models.torchvision import torchvision_model

__all__ = ["CNN", "MLP", "Linear", "ResNet", "torchvision_model"]
