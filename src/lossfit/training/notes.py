"""Lines for the log about a run that is about to start: what may go against the user's wishes."""

import os

import torch
from lightning.pytorch import Trainer

from lossfit import option_files
from lossfit.config import Config
from lossfit.data import ImageDataModule
from lossfit.errors import first_ten
from lossfit.system.processors import busy_processors, too_many_threads
from lossfit.tasks.task import Task


def processor_notes(trainer: Trainer) -> list[str]:
    """Warn of a training on processors that wants more of them than are free."""
    if trainer.strategy.root_device.type != "cpu":
        return []
    threads = torch.get_num_threads()
    # without OMP_NUM_THREADS, the ranks share the processors out
    ranks = trainer.world_size // trainer.num_nodes if "OMP_NUM_THREADS" in os.environ else 1
    warning = too_many_threads(ranks, threads, "rank") or busy_processors(threads)
    return [warning] if warning else []


def augment_notes(config: Config, data: ImageDataModule, task: Task) -> list[str]:
    """Say that an augmentation may change the target, which only the user can know."""
    if not data.augment or task.mirrors:
        return []
    chosen = option_files.chosen(config).get("data/augment")
    return [
        f"Warning: {f'data/augment={chosen}' if chosen else 'data.augment'} mirrors, shifts or crops training images: "
        f"right only if that does not change {first_ten(task.names)}; data/augment=none turns it off"
    ]
