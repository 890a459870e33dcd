"""What a job asks of a scheduler, as its trainer has it; conf/hydra/launcher/ calls these as resolvers."""

from typing import Any

from lossfit.errors import UserError


def ranks(devices: Any) -> int:
    """Return the number of processes on a node; raise UserError where only the node could tell."""
    if isinstance(devices, int) and devices >= 1:
        return devices
    raise UserError(
        f"trainer.devices={devices}: which ones there are is known on the node only; say how many, trainer.devices=2"
    )


def gpus(accelerator: str, devices: Any) -> int | None:
    """Return the number of GPUs on a node, None for none; raise UserError where only the node could tell."""
    if accelerator == "auto":
        raise UserError("trainer.accelerator=auto: a job must ask for GPUs or not: set trainer=gpu, ddp or cpu")
    return ranks(devices) if accelerator in ("gpu", "cuda") else None
