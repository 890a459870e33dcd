"""Pretrained weights for timm's models, from a file or from the hub that timm names."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from lossfit.errors import one_line
from lossfit.models.pixel_statistics import Statistics

HUB = "hub"
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")


def pretrained(create: Callable[..., nn.Module], name: str, weights: str, num_classes: int) -> nn.Module:
    """Build a timm model with pretrained weights; `create` is timm.create_model with the other arguments.

    weights: "hub", or the path of a file. timm adapts the first convolution to the number of channels, position
    embeddings to the image size, and leaves out a head for another number of classes. The model gets `weights_note`, a
    line for the log that says where its weights come from and which are new, and `pixel_statistics`, the mean and the
    standard deviation of the pixels that it was trained with.
    """
    import timm

    known = timm.get_pretrained_cfg(name)
    assert known is not None
    source: dict[str, Any] = known.to_dict()
    options: dict[str, Any] = {}
    statistics = None
    if weights != HUB:
        state, statistics = read(Path(weights), name, source)
        options["pretrained_cfg_overlay"] = _description(state, source)
    where = weights if weights != HUB else str(source.get("hf_hub_id") or source.get("url"))
    try:
        if weights == HUB:
            _check_network(source)
        with _recorded_loading() as loaded:
            model = create(pretrained=True, **options)
    except Exception as error:
        if weights == HUB:
            raise ValueError(f"weights=hub cannot be fetched ({one_line(error)}): {_where(name, source)}") from error
        raise ValueError(f"weights={weights} does not fit {name}: {one_line(error)}") from error
    kept: Any = model.pretrained_cfg
    kept["state_dict"] = None  # it would keep the whole file in memory
    missing, unused = loaded[-1] if loaded else ([], [])
    heads = tuple(f"{head}." for head in head_names(model))
    if lacking := [key for key in missing if not key.startswith(heads)]:
        raise ValueError(
            f"weights={weights} is of another model than {name}: it lacks {len(lacking)} of its weights, such as "
            f"{lacking[0]}"
        )
    note = f"Weights from {where}"
    if missing:
        note += f"; new random weights for {num_classes} classes: {', '.join(missing)}"
    if unused:
        note += f"; not used: {unused[0]}" + (f" and {len(unused) - 1} others" if unused[1:] else "")
    model.weights_note = note  # type: ignore[assignment]
    model.pixel_statistics = statistics or (tuple(source["mean"]), tuple(source["std"]))  # type: ignore[assignment]
    return model


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the last layers of a timm model."""
    names: Any = model.pretrained_cfg.get("classifier") or ()  # type: ignore[operator, union-attr]
    return (names,) if isinstance(names, str) else tuple(names)


def read(path: Path, name: str, source: Mapping[str, Any]) -> tuple[dict[str, Tensor], Statistics | None]:
    """Read a file of timm's or a checkpoint of lossfit; return its tensors, and what it says of the pixels.

    Only tensors and plain values are read: no code of the file is run.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"weights must be null, hub or a file ({', '.join(SUFFIXES)}), got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"weights={path} is not there: {_where(name, source, path)}")
    from safetensors.torch import load_file
    from timm.models import clean_state_dict

    try:
        of_torch = path.suffix != ".safetensors"
        content: Any = torch.load(path, map_location="cpu", weights_only=True) if of_torch else load_file(path)
        about = content.get("hyper_parameters")  # of any Lightning project
        of_lossfit = isinstance(about, Mapping) and "mean" in about and "std" in about
        key = next((k for k in ("state_dict_ema", "model_ema", "state_dict", "model") if k in content), None)
        state: dict[str, Any] = clean_state_dict(content if key is None else content[key])
        if of_lossfit:  # where the loss may have weights too
            state = {name: value for name, value in state.items() if name.startswith("model.")}
        while state and all(name.startswith("model.") for name in state):
            state = {name.removeprefix("model."): value for name, value in state.items()}
        if not state or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError("it does not hold tensors by name")
        statistics = (tuple(about["mean"]), tuple(about["std"])) if of_lossfit else None
    except Exception as error:
        raise ValueError(f"weights={path} cannot be read: {one_line(error)}") from error
    return state, statistics


def _description(state: dict[str, Tensor], source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what timm is told of a file: its tensors, and of how many classes and channels they are."""
    told: dict[str, Any] = {"state_dict": state, "custom_load": False}
    heads = source.get("classifier")
    head = state.get(f"{heads if isinstance(heads, str) else (heads or [''])[0]}.weight")
    if head is not None:
        told |= {"num_classes": head.shape[0], "label_offset": 0}
    first = state.get(f"{source.get('first_conv')}.weight")
    if first is not None and first.ndim == 4 and first.shape[1] == 1:
        told["input_size"] = (1, *source["input_size"][1:])
    return told


def _where(name: str, source: Mapping[str, Any], path: Path | None = None) -> str:
    """Say which file has the weights, and where to put it."""
    address = source.get("url")
    if source.get("hf_hub_id"):
        from huggingface_hub import hf_hub_url

        address = hf_hub_url(source["hf_hub_id"], source.get("hf_hub_filename") or "model.safetensors")
    if not address:
        import timm

        names = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        return f"timm has no weights for {name}" + (f", only for {', '.join(names)}" if names else "")
    if path is not None:
        return f"fetch {address} and put it there"
    return f"fetch {address} on a machine with a network, and give its path as model.weights=FILE.safetensors"


def _check_network(source: Mapping[str, Any]) -> None:
    """Raise OSError if the file is not in the hub's cache and there is no network; the hub would try for a minute."""
    repository = source.get("hf_hub_id")
    if repository is None or getproxies():
        return
    from huggingface_hub import constants, try_to_load_from_cache

    named = source.get("hf_hub_filename")
    files = (named,) if named else ("model.safetensors", "pytorch_model.bin")
    if not any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)


@contextmanager
def _recorded_loading() -> Iterator[list[tuple[list[str], list[str]]]]:
    """Collect what this thread's calls of load_state_dict find missing and unexpected, which timm does not return.

    timm renames and resizes a file's tensors by functions that are private to each architecture, so that its weights
    cannot be loaded in another way. Calls of other threads do what they always do, and are not collected.
    """
    found: list[tuple[list[str], list[str]]] = []
    original, own = nn.Module.load_state_dict, threading.get_ident()

    def recorded(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        if threading.get_ident() == own:
            found.append((list(result.missing_keys), list(result.unexpected_keys)))
        return result

    nn.Module.load_state_dict = recorded  # type: ignore[method-assign]
    try:
        yield found
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
