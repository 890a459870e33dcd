"""The data of a trained model's run, and the model's outputs for them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import lossfit.data
from lossfit import runs
from lossfit.config import call
from lossfit.data import ImageDataModule, InMemoryDataModule
from lossfit.data.stores.images import Images, stream
from lossfit.data.views import View, same
from lossfit.errors import ConfigError, DataChanged, UserError
from lossfit.inference.trained_model import TrainedModel
from lossfit.plain_values import is_name, is_plain, shown

log = logging.getLogger(__name__)

DIGEST = re.compile("[0-9a-f]{64}")  # SHA-256


def split(
    model: TrainedModel, name: str, folder: str | Path | None = None, run: Path | None = None
) -> tuple[Images, Tensor]:
    """Return the images and targets of a split of the run's data.

    name: train, val or test. folder: where the data's files are now; None for the folder of the run's config. run: the
    run folder, whose list of images says which were in which split. The config may come from anyone: only lossfit's
    data modules are built, with plain values, and files are read, not downloaded. A stream's server is asked only if
    this account made the run folder, with these data, or if the user names it with `folder`.

    Raises UserError if the data cannot be read, do not have the model's image shape and names, or are not those of the
    run: if images were added, a split drawn anew has images that the model was trained on. With `folder` the user has
    named the images, and may mean others: a warning then says how they differ.
    """
    node = {key: value for key, value in model.config["data"].items() if key not in ("augment", "mix")}
    target = node.pop("_target_", None)
    general = (ImageDataModule, InMemoryDataModule)
    modules = {
        f"lossfit.data.{name}": kind
        for name, kind in vars(lossfit.data).items()
        if isinstance(kind, type) and issubclass(kind, ImageDataModule) and kind not in general
    }
    if target not in modules:
        raise UserError(f"the run's data module {shown(target)} is not one of lossfit's ({', '.join(modules)})")
    for key, value in node.items():
        digests = isinstance(value, dict) and all(is_name(k) and DIGEST.fullmatch(str(v)) for k, v in value.items())
        names = isinstance(value, list) and all(is_name(str(name)) and is_plain(name, depth=0) for name in value)
        plain = digests or names or (is_plain(value, depth=0) and str(value).isprintable())
        if not plain or not is_name(key) or not key.isidentifier():
            raise UserError(f"the run's data have {shown(key)}: {shown(value)}, which is not a plain value")
    own = run is not None and runs.composed_here(run, "data", model.config["data"])
    node = modules[target].from_elsewhere(node, None if folder is None else str(folder), own)
    try:
        data: ImageDataModule = call(modules[target], "data", **node)
        call(data.setup, "data")
    except ConfigError as error:
        raise UserError(f"{error}\n(of a run's data: --data FOLDER says where the files lie now)") from error
    same_task = data.task.name == model.task and data.task.names == model.names
    if not same_task or tuple(data.image_shape) != tuple(model.image_shape):
        raise UserError(
            f"the run's data are for {data.task.name} with {len(data.task.names)} names and images "
            f"{tuple(data.image_shape)}, and the model for {model.task} with {len(model.names)} and {model.image_shape}"
        )
    if run is not None:
        _check_unchanged(data, run, name, named=folder is not None)
    return data.splits[name]


def _check_unchanged(data: ImageDataModule, run: Path, name: str, named: bool) -> None:
    try:
        data.check_unchanged(run)
    except DataChanged as error:
        risk = f"the model may have been trained on some of the {name} split"
        if not named:
            raise UserError(
                f"{error.change}, so that {risk}: put them back, or name the images to use with --data FOLDER"
            ) from error
        log.warning("%s: %s", error.change, risk)


def batches_of(images: Images, size: int) -> Iterator[Tensor]:
    """Yield images, of any store, as pixels uint8 (B, C, H, W), `size` at a time."""
    yield from stream(images, torch.arange(len(images)).split(size))


@torch.inference_mode()
def outputs_of(model: TrainedModel, images: Images, view: View = same) -> Tensor:
    """Return the model's outputs (N, K), for classes logits, in batches of the run's eval_batch_size.

    view: of the images, which the model gets.
    """
    size = int(model.config["data"].get("eval_batch_size", 1000))
    return torch.cat([model.outputs(view(batch)) for batch in batches_of(images, size)])
