"""Any classifier of timm, with or without pretrained weights, changed to fit the data's channels and classes."""

import re
from functools import partial
from typing import Annotated, Any

from torch import nn

from lossfit.errors import did_you_mean
from lossfit.models.finetuning import Freeze, fine_tuned
from lossfit.models.head import head
from lossfit.models.pixel_statistics import for_channels
from lossfit.models.timm_weights import head_names, pretrained
from lossfit.models.torchvision import Resized
from lossfit.ranges import Between0And1, From0Below1, Positive, Range, checked

NAME = re.compile(r"\w+(\.\w+)?")  # timm also takes hf-hub:NAME and local-dir:PATH, which would fetch or read a config
LARGEST = 1024  # pixels; position tables grow with the fourth power of the side


@checked
def timm_model(
    num_classes: int,
    image_shape: tuple[int, int, int],
    name: str = "resnet18",
    weights: str | None = None,
    resize: Annotated[int, Range(1, 4096)] | None = None,
    drop_rate: From0Below1 = 0.0,
    drop_path: From0Below1 = 0.0,
    cosine_scale: Positive | None = None,
    freeze: Freeze | None = None,
    layer_decay: Between0And1 | None = None,
) -> nn.Module:
    """Build a timm model for these channels and classes, and for the image size where the architecture has a fixed one.

    name: one of timm.list_models(), or with a tag that says which pretrained weights, of timm.list_pretrained().
    weights: null for random weights, "hub" to fetch timm's own, or a file: .safetensors, or .bin, .pth or .ckpt. The
    pixels are then normalised as for these weights, and the head gets new weights if it is for other classes. resize:
    the height and width in pixels to which images are resized first. drop_rate: the probability of zeroing a feature
    before the head in training. drop_path: that of skipping a residual block (stochastic depth). cosine_scale: see
    `head`. freeze, layer_decay: see `fine_tuned`; layers are timm's own.
    """
    timm = _timm()
    _check_name(timm, name)
    channels, height, width = image_shape
    if resize is not None:
        height = width = resize
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": channels}
    if timm.get_pretrained_cfg(name).fixed_input_size:
        if max(height, width) > LARGEST:
            raise ValueError(f"resize must be at most {LARGEST} for {name}, for images of {height} x {width} pixels")
        options["img_size"] = (height, width)
    options |= {key: value for key, value in (("drop_rate", drop_rate), ("drop_path_rate", drop_path)) if value}
    create = partial(timm.create_model, name, **options)
    try:
        model = create() if weights is None else pretrained(create, name, weights, num_classes)
    except TypeError as error:
        unknown = re.search("unexpected keyword argument '(drop_path|drop)_rate'", str(error))
        if unknown is None:
            raise
        key, value = ("drop_path", drop_path) if unknown[1] == "drop_path" else ("drop_rate", drop_rate)
        raise ValueError(f"{key} must be 0 for {name}, which has no such option, got {value}") from error
    _check_patches(model, name, height, width)
    heads = head_names(model)
    if cosine_scale is not None:
        _set_cosine_head(model, heads, num_classes, cosine_scale)
    scales = None if layer_decay is None else _lr_scales(timm, model, layer_decay)
    if statistics := getattr(model, "pixel_statistics", None):
        statistics = for_channels(statistics, channels)  # type: ignore[arg-type]
    note = getattr(model, "weights_note", None)
    if resize is not None:
        model, heads = Resized(model, resize), tuple(f"model.{name}" for name in heads)
        scales = scales and {f"model.{name}": scale for name, scale in scales.items()}
    if statistics:
        model.pixel_statistics, model.weights_note = statistics, note  # type: ignore[assignment]
    return fine_tuned(model, heads, freeze, layer_decay, scales)


def _timm() -> Any:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise ValueError('timm is not installed: pip install -e ".[timm]"') from error
    return timm


def _check_name(timm: Any, name: str) -> None:
    """Raise ValueError for a name that is not in timm's own list, which is all that timm is asked for."""
    known = set(timm.list_models())
    architecture, _, tag = name.partition(".") if isinstance(name, str) else ("", "", "")
    tags = set(timm.list_pretrained(f"{architecture}.*")) if architecture in known else set()
    if not NAME.fullmatch(str(name)) or architecture not in known or (tag and name not in tags):
        hint = did_you_mean(name, tags or known) if isinstance(name, str) else ""
        hint = hint if tags or hint.startswith(" (did") else " (timm.list_models() lists them)"
        raise ValueError(f"name must be a model of timm, got {name!r:.100}{hint}")


def _check_patches(model: nn.Module, name: str, height: int, width: int) -> None:
    """Raise ValueError if the patches of a vision transformer leave out a part of the image."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and len(patch) == 2 and (height % patch[0] or width % patch[1]):
        rows, columns = patch
        raise ValueError(
            f"resize must make the image a multiple of {name}'s patches of {rows} x {columns} pixels, which "
            f"{height} x {width} is not: set it to {-(-max(height, width) // rows) * rows} or more, such as 224"
        )


def _set_cosine_head(model: nn.Module, heads: tuple[str, ...], num_classes: int, cosine_scale: float) -> None:
    old = model.get_submodule(heads[0]) if len(heads) == 1 else None
    if not isinstance(old, nn.Linear):
        raise ValueError(f"cosine_scale={cosine_scale} needs one linear head; this model has {', '.join(heads)}")
    model.set_submodule(heads[0], head(old.in_features, num_classes, cosine_scale))


def _lr_scales(timm: Any, model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return timm's factor of the learning rate for each parameter, by name."""
    import timm.optim

    groups = timm.optim.param_groups_layer_decay(model, layer_decay=layer_decay)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    return {name: scales[id(p)] for name, p in model.named_parameters() if id(p) in scales}
