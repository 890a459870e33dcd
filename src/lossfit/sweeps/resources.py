"""GPUs: how many a job needs, which this machine has, and who uses them."""

import os
from typing import Any

from lossfit.config import Config
from lossfit.errors import UserError
from lossfit.sweeps import rehearsal


def ranks(devices: Any) -> int:
    """Return the number of processes on a node; raise UserError for `auto`, which only the node could resolve.

    conf/hydra/launcher/ calls this and `gpus` as resolvers.
    """
    if isinstance(devices, int) and devices >= 1:
        return devices
    raise UserError(
        f"trainer.devices={devices}: only the node knows how many devices it has; give a number, trainer.devices=2"
    )


def gpus(accelerator: str, devices: Any) -> int | None:
    """Return the number of GPUs on a node, None for none; raise UserError for `auto`."""
    if accelerator == "auto":
        raise UserError("trainer.accelerator=auto: a job must ask for GPUs or not: set trainer=gpu, ddp or cpu")
    return ranks(devices) if accelerator in ("gpu", "cuda") else None


def gpus_needed(trainer: Config, available: int) -> int:
    """Return how many of this machine's GPUs a run uses; raise UserError if it cannot have them."""
    devices, accelerator = trainer.get("devices", "auto"), trainer.get("accelerator", "auto")
    if not available or accelerator not in ("auto", "gpu", "cuda"):
        return 0
    if isinstance(devices, list):
        raise UserError(
            f"trainer.devices={devices}: in a sweep each job is given its GPUs: say how many, and choose among them "
            f"with CUDA_VISIBLE_DEVICES"
        )
    count = available if devices in ("auto", -1, "-1") else int(devices)
    if count > available:
        raise UserError(f"trainer.devices={devices}: this machine has {available} GPUs")
    return count


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that CUDA_VISIBLE_DEVICES lets this process use."""
    from torch.cuda import device_count

    count = rehearsal.in_a_fork(device_count, failed=0)
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(index) for index in range(count)]


class GpuSlots:
    """The GPUs of this machine, each with slots for `jobs_per_gpu` jobs."""

    def __init__(self, names: list[str], jobs_per_gpu: int) -> None:
        self.free = dict.fromkeys(names, jobs_per_gpu)
        self.total = len(names) * jobs_per_gpu

    def take(self, count: int) -> list[str] | None:
        """Take a slot on each of `count` GPUs, those with the most free slots; return their names, None for too few."""
        names = sorted((name for name, slots in self.free.items() if slots), key=lambda name: -self.free[name])
        if len(names) < count:
            return None
        for name in names[:count]:
            self.free[name] -= 1
        return names[:count]

    def release(self, names: list[str]) -> None:
        """Free a slot on each of these GPUs."""
        for name in names:
            self.free[name] += 1
