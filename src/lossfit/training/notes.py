"""Lines for the log about a run that is about to start: what may go against the user's wishes."""

import itertools
import os
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import torch
from lightning.pytorch import Trainer

from lossfit import option_files
from lossfit.config import Config
from lossfit.data import ImageDataModule
from lossfit.diagnosis.changes import LEAST_STEPS
from lossfit.errors import first_ten
from lossfit.option_files import same_value
from lossfit.overrides import PRETRAINED
from lossfit.system.processors import busy_processors, too_many_threads
from lossfit.tasks.task import Task

FEW_STEPS = 50
FOR_ALL = ("data", "trainer")  # groups: a batch size and a number of epochs are meant for all of their options
MUON, LARGE = "lossfit.optim.muon.Muon", 0.02  # learning rate: above it, weights are soon replaced


def starting_notes(
    config: Config, data: ImageDataModule, task: Task, trainer: Trainer, batches: int, resumes: bool
) -> list[str]:
    """Return all lines. batches: of an epoch, which the processes share. resumes: whether the run goes on."""
    notes = [*processor_notes(trainer), *augment_notes(config, data, task), *validation_notes(trainer)]
    if resumes:
        return notes
    return [
        *notes,
        *experiment_notes(config),
        *pretrained_notes(config),
        *short_training_notes(trainer, data, batches),
    ]


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


def experiment_notes(config: Config) -> list[str]:
    """Warn of values that an experiment sets for one option of a group, and that hold for another one, too."""
    choices = option_files.chosen(config)
    name = choices.get("experiment")
    experiment = option_files.read_experiment(name)
    notes = []
    for group, intended in _intended_options(experiment).items():
        option, path = choices.get(group), group.split("/")
        of_option, of_experiment, of_run = option_files.read(group, option), _at(experiment, path), _at(config, path)
        differing = [
            key
            for key, value in of_experiment.items()
            if key in of_option and not same_value(value, of_option[key]) and same_value(value, of_run.get(key))
        ]
        if option != intended and differing:
            prefix = ".".join(path)
            held, back = (
                " ".join(f"{prefix}.{key}={node[key]}" for key in differing) for node in (of_experiment, of_option)
            )
            notes.append(
                f"Warning: experiment={name} is made for {group}={intended}, and its {held} holds for {group}={option} "
                f"too: for the value of {option} add {back}"
            )
    return notes


def _at(config: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """Return the mapping at a path of keys; empty if there is none."""
    node: Any = config
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return dict(node) if isinstance(node, Mapping) else {}


def _intended_options(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return the option of each group that the values of an experiment are for: the experiment's, or the default."""
    if not experiment:
        return {}
    lists = option_files.read(".", "config")["defaults"], experiment.get("defaults", [])
    entries = [entry for entry in itertools.chain(*lists) if isinstance(entry, dict)]
    found = {key.removeprefix("override ").lstrip("/"): option for entry in entries for key, option in entry.items()}
    return {group: option for group, option in found.items() if group not in FOR_ALL and isinstance(option, str)}


def pretrained_notes(config: Config) -> list[str]:
    """Warn of Muon's default steps, which are for new weights: a few of them replace pretrained ones."""
    pretrained = any(PRETRAINED.search(key) and value for key, value in config["model"].items())
    lr = config["optimizer"].get("lr", 0)
    if not (pretrained or config.get("init_from")) or config["optimizer"]["_target_"] != MUON or lr <= LARGE:
        return []
    return [
        f"Warning: optimizer.lr={lr} of muon replaces pretrained weights within a few steps: "
        "add experiment=finetune, or optimizer=adamw optimizer.lr=1e-3"
    ]


def validation_notes(trainer: Trainer) -> list[str]:
    """Warn of a last epoch without validation, whose weights then cannot become the best checkpoint."""
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    limited = trainer.max_steps != -1 or trainer.limit_val_batches == 0 or trainer.checkpoint_callback is None
    if limited or not every or not epochs or epochs < 1 or epochs % every == 0:
        return []
    what = f"epoch {epochs}, the last one, is not validated, so that it cannot become best.ckpt"
    if epochs < every:
        what = "no epoch is validated, so that there is no best.ckpt"
    return [
        f"Warning: {what}: trainer.max_epochs={epochs} is not a multiple of trainer.check_val_every_n_epoch={every}; "
        f"add trainer.max_epochs={ceil(epochs / every) * every}"
    ]


def short_training_notes(trainer: Trainer, data: ImageDataModule, batches: int) -> list[str]:
    """Warn of an epoch count that means few steps, as the default one does for few images.

    batches: of an epoch, which the processes share.
    """
    limited = trainer.max_steps != -1 or trainer.limit_train_batches != 1.0
    if limited or isinstance(data.batch_size, str) or not trainer.max_epochs or trainer.max_epochs < 1:
        return []
    images = len(data.splits["train"][1])
    each = ceil(ceil(batches / trainer.world_size) / trainer.accumulate_grad_batches)
    steps = each * trainer.max_epochs
    if steps >= FEW_STEPS:
        return []
    return [
        f"Warning: {steps} steps of the optimizer are few for a network ({images:,} images in batches of "
        f"{data.batch_size}, trainer.max_epochs={trainer.max_epochs}): "
        f"add trainer.max_epochs={ceil(LEAST_STEPS / each)}"
    ]
