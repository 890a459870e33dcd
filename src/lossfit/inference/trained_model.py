"""Load a trained model from a run folder or a checkpoint, and use it on images. Needs no Hydra and no config."""

import os
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from lossfit import runs
from lossfit.config import build
from lossfit.data import views
from lossfit.data.batches import Normalize
from lossfit.data.pictures import Resize
from lossfit.errors import ConfigError, UserError
from lossfit.inference import calibration, image_files
from lossfit.models.closed import builders, from_checkpoint
from lossfit.runs import checkpoints
from lossfit.runs.checkpoint_schema import Checkpoint

AnyImage = str | os.PathLike[str] | Image | np.ndarray
Images = Tensor | AnyImage | Sequence[AnyImage]
ACCEPTED = (
    "a path, a PIL image, a uint8 array (H, W) or (H, W, C), a list of these, or a uint8 tensor of pixels (N, C, H, W)"
)


class TrainedModel(nn.Module):
    """Images -> probabilities (N, C) or values (N, D), as the task of the data and the loss say.

    A call takes pixels, a uint8 tensor (N, C, H, W), or what `pixels` turns into them: a path, a PIL image, an array,
    or a list of these. It returns the probabilities of the classes, which sum to 1 if an image has one class, or the
    values in their own unit; if the loss was gaussian_nll, (N, 2 D), the values and then their standard deviations.
    `predict` returns decisions in the form of the targets, and `classify` the names of classes.

    task: its name. names: of the classes or values; units: of the values. image_shape: (C, H, W) of the training
    images. costs: `costs[true][predicted]` or None. metrics, epochs: the values measured when the checkpoint was
    written, and after how many epochs that was. config: the run's config. temperature: by which logits are divided, or
    variances multiplied, before anything is made of them; 1 without calibration. tta: over which views of each image
    the model is averaged; None for the image alone.
    """

    def __init__(self, model: nn.Module, checkpoint: Checkpoint) -> None:
        super().__init__()
        about = checkpoint.description
        self.model = model
        self.of_task = about.make_task()
        self.task = self.of_task.name
        self.names: tuple[str, ...] = self.of_task.names
        self.units: tuple[str, ...] = getattr(self.of_task, "units", ())
        channels, height, width = about.image_shape
        self.image_shape = (channels, height, width)
        self.costs = self.of_task.costs
        self.config = about.config
        self._resize = about.resize
        self.metrics = checkpoint.metrics
        self.epochs = checkpoint.epochs
        self.temperature = 1.0
        self.tta: views.Kind | None = None
        self.normalize = Normalize(about.mean, about.std)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.names

    def outputs(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W) -> the model's outputs (N, K), for classes logits over the temperature."""
        channels = self.image_shape[0]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != channels:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"images must be uint8 pixels (N, C, H, W), got {got}; the model has C = {channels}")
        return views.outputs_for(self._outputs, self.normalize(images), self.tta, self.of_task)

    def _outputs(self, images: Tensor) -> Tensor:
        outputs = self.model(images)
        return outputs if self.temperature == 1 else self.of_task.tempered(outputs.float(), self.temperature)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W) -> probabilities or values."""
        return self.of_task.returned(self.outputs(images))

    def __call__(self, images: Images) -> Tensor:
        """Images of any kind -> probabilities or values."""
        return super().__call__(self.pixels(images))

    def classify(self, images: Images) -> list[Any]:
        """Images of any kind -> the name of the predicted class of each, or the list of its classes; also for one."""
        if self.of_task.returns != "probabilities":
            raise TypeError(f"the model predicts values ({', '.join(self.names)}), not classes: use predict")
        return [result["predicted"] for result in self.results(self.pixels(images), 1)]

    @torch.inference_mode()
    def predict(self, images: Images) -> Tensor:
        """Images of any kind -> predicted classes (N,), sets of classes (N, C) of 0 and 1, or values (N, D).

        A class is the likeliest, or with costs that of lowest expected cost.
        """
        return self.of_task.decide(self.outputs(self.pixels(images)))

    @torch.inference_mode()
    def results(self, pixels: Tensor, top: int) -> list[dict[str, Any]]:
        """Pixels, uint8 (N, C, H, W) -> what scripts/predict.py says of each image. top: how many classes."""
        return self.of_task.results(self.outputs(pixels), top)

    def pixels(self, images: Images, invert: bool | None = None) -> Tensor:
        """Images of any kind and size -> pixels, uint8 (N, C, H, W), of the training images' size.

        A tensor is returned as it is. How another image is scaled, padded and, by `invert`, inverted, is described at
        `image_files.fit`. Raises UserError for a file that cannot be read, ValueError or TypeError for another object.
        """
        if isinstance(images, Tensor):
            return images
        several = images if isinstance(images, (list, tuple)) else [images]
        if not several:
            raise ValueError("images is an empty list")
        options = self.image_shape, invert, self.light_background, self.resize
        found = []
        for image in several:
            if isinstance(image, (str, os.PathLike)):
                found.append(image_files.read(image, *options)[0])
            elif isinstance(image, (Image, np.ndarray)):
                picture = image_files.from_array(image) if isinstance(image, np.ndarray) else image
                found.append(image_files.fit(picture, *options)[0])
            else:
                raise TypeError(f"images must be {ACCEPTED}; got {type(image).__name__}")
        return torch.stack(found).to(self.normalize.scale.device)

    @property
    def resize(self) -> Resize | None:
        """The rule by which training images were resized, if the model was trained on image files."""
        rule: Any = self._resize or self.config["data"].get("resize")  # of files from before checkpoints had it
        return rule if rule in get_args(Resize) else None

    @property
    def light_background(self) -> bool:
        """Whether the training images are light rather than dark, in the mean."""
        return bool((-self.normalize.shift / self.normalize.scale).mean() > 127.5)


def load(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    trust_code: bool = False,
    calibrated: bool = False,
    tta: views.Kind | None = None,
) -> TrainedModel:
    """Return the model of a run folder (its best checkpoint) or of a checkpoint file, in eval mode on the CPU.

    A checkpoint is data: it may name the models of lossfit and the classifiers of torchvision and timm, and loading it
    runs no code from it, imports nothing that it names and downloads nothing. If the model is the user's own code, pass
    it as `model`, built as for the training, or pass trust_code=True to import the code that the checkpoint names. A
    run folder that this account made on this machine needs neither.

    calibrated: use the temperature that `scripts/evaluate.py RUN --calibrate` fitted on the validation split for this
    checkpoint, so that probabilities, or the standard deviations of a regression, are about as sure as they should be.
    tta: average the probabilities over views of each image, "mirror" or "crops" (test-time augmentation). A model of
    values takes none.

    Raises UserError, naming the file, if it is missing, damaged or of another program, or if its model is refused; with
    calibrated, also if there is no calibration.json or if it was fitted for another checkpoint.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.read(file)
    weights, facts = checkpoint.weights, checkpoint.description.facts
    node = checkpoint.description.config["model"]
    try:
        with torch.random.fork_rng(devices=[]):  # building a model draws random numbers
            if model is not None:
                made = model
            elif str(node.get("_target_")) not in builders() and (
                trust_code or runs.composed_here(checkpoints.home(file), "model", node)
            ):
                made = build(node, "model", **facts)
            else:
                made = from_checkpoint(node, weights, **facts)
        made.load_state_dict(weights)
    except ConfigError as error:
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error
    except (RuntimeError, AttributeError) as error:
        first = (str(error).splitlines()[1:2] or [str(error)])[0].strip()  # the first line is a headline
        name = type(model).__name__ if model is not None else node.get("_target_")
        raise UserError(f"{file}: its weights do not fit {name}: {first:.300}") from error
    trained = TrainedModel(made, checkpoint).eval()
    views.check(tta, trained.of_task, f"tta={tta}")
    trained.tta = tta
    if calibrated:
        trained.temperature = calibration.read(path, trained.of_task)
    return trained
