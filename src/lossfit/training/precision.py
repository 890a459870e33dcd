"""trainer.precision=auto: bfloat16 where the device of a run computes with it itself, float32 elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lossfit.config import Config
from lossfit.config.trainer_bounds import AUTO, BFLOAT16, FLOAT32
from lossfit.errors import ConfigError

EXACT = (None, "32-true", "32", 32, "64-true", "64", 64)  # precisions that round nothing to 16 bits


def with_precision(config: Config) -> Config:
    """Return the config with a precision in the place of auto, so that a run keeps it where it is resumed.

    LBFGS compares losses at neighbouring points, whose differences bfloat16 would round away.
    """
    trainer = config["trainer"]
    if trainer.get("precision") != AUTO:
        return config
    searches_line = str(config.get("optimizer", {}).get("_target_")).endswith(".LBFGS")
    found = BFLOAT16 if has_bfloat16(_device(trainer)) and not searches_line else FLOAT32
    return {**config, "trainer": {**trainer, "precision": found}}


def precision_notes(config: Config) -> list[str]:
    """Warn of bfloat16 on a device that does not have it."""
    trainer = config["trainer"]
    device = _device(trainer)
    if not str(trainer.get("precision")).startswith("bf16") or has_bfloat16(device):
        return []
    name = "processor" if device == "cpu" else device
    return [
        f"Warning: trainer.precision={trainer['precision']}: this {name} does not compute with bfloat16, and torch "
        f"emulates it, which is slower than trainer.precision=32-true"
    ]


@contextmanager
def refusing_wrong_gradients(model: nn.Module, trainer: Config) -> Iterator[None]:
    """Raise ConfigError if torch cannot train a convolution that the model applies in the block in 16 bits on a CPU.

    In bfloat16, of a padded convolution of images smaller than its stride, oneDNN leaves the weights' gradient
    unwritten where a weight meets the padding alone (torch 2.15): it has whatever was in memory.
    """
    wrong: list[str] = []

    def look(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        size = inputs[0].shape[2:]
        if any(layer.padding) and any(side < stride for side, stride in zip(size, layer.stride, strict=True)):
            wrong.append(" x ".join(map(str, size)))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    rounds = trainer.get("precision") not in EXACT and _device(trainer) == "cpu"
    hooks = [layer.register_forward_pre_hook(look) for layer in layers if rounds]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if wrong:
        raise ConfigError(
            f"trainer.precision={trainer['precision']}: a convolution of this model has a stride larger than the "
            f"{wrong[0]} pixels that it gets, and torch computes wrong gradients of it in bfloat16 on a processor: "
            f"take trainer.precision=32-true, or larger images"
        )


def has_bfloat16(device: str) -> bool:
    """Whether a kind of device of this machine computes with bfloat16, without emulation: all of its GPUs, or its CPU.

    torch.ops.mkldnn._is_mkldnn_bf16_supported is true for AVX512 without bfloat16 as well, and is not asked.
    """
    if device == "cuda":
        gpus = range(torch.cuda.device_count())
        return torch.version.hip is not None or all(torch.cuda.get_device_capability(gpu) >= (8, 0) for gpu in gpus)
    if device == "cpu" and torch.backends.mkldnn.is_available():
        has = torch.cpu.get_capabilities()  # avx512_bf16 and amx_bf16 of x86, bf16 of ARM
        return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _device(trainer: Config) -> str:
    """Return the kind of device that a trainer's accelerator takes, which is asked before there is a Trainer."""
    wanted = trainer.get("accelerator", "auto")
    if wanted not in ("auto", "gpu"):
        return str(wanted)
    if torch.backends.mps.is_available():
        return "mps"
    return "cuda" if wanted == "gpu" or torch.cuda.is_available() else "cpu"
