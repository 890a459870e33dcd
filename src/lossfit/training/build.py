"""From a config to a run that is ready to train. Nothing here writes into the run folder."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint as CheckpointCallback
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from lightning.pytorch.profilers import PassThroughProfiler
from torchmetrics import Metric

from lossfit.config import Config, build, call, check_monitors, metric_name, own_metrics, with_monitors
from lossfit.data import ImageDataModule, views
from lossfit.data.augment import Augment
from lossfit.errors import ConfigError, UserError
from lossfit.models.closed import without_pretrained
from lossfit.models.head import logit_scale
from lossfit.optim.traits import Traits
from lossfit.runs import names
from lossfit.runs.checkpoint_schema import Checkpoint, Description
from lossfit.tasks import metric_names
from lossfit.tasks.task import Task
from lossfit.training.checkpoint_io import AtomicCheckpointIO
from lossfit.training.initial_weights import Start, check_same_model, of_another_run, show_training_images
from lossfit.training.module import TrainingModule
from lossfit.training.notes import starting_notes
from lossfit.training.precision import precision_notes, refusing_wrong_gradients, with_precision
from lossfit.training.rank_launcher import check_ranks
from lossfit.training.step_costs import NoProfiler
from lossfit.training.trials import check_accelerator, check_loss, try_loss, try_model, try_one_image, try_optimizer

DOUBLE = ("64-true", 64, "64")  # trainer.precision
HALF = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
Facts = dict[str, Any]  # arguments that targets may take, by name; lossfit.config.FACTS lists them


@dataclass
class Run:
    """A run that is ready to train. checkpoint: the one that it goes on from. notes: lines for the log."""

    config: Config
    folder: Path
    data: ImageDataModule
    module: TrainingModule
    trainer: Trainer
    checkpoint: Checkpoint | None
    notes: list[str]


def build_run(
    config: Config,
    folder: Path,
    checkpoint: Checkpoint | None = None,
    data: ImageDataModule | None = None,
    download: bool = True,
) -> Run:
    """Build and try the data module, which is set up, the module and the trainer of a run, by its seed.

    The run's config has a precision in the place of auto. data: the data module, if it is set up already. download:
    whether it may download the data. Raises ConfigError for what cannot be built or would not work, and UserError for a
    checkpoint that this run cannot go on from.
    """
    seed = config["seed"] or 0  # never null in a run folder
    seed_everything(seed, workers=True, verbose=False)
    check_accelerator(config["trainer"])
    config = with_precision(config)
    data = data or load_data(config, seed, download)
    task = task_of_run(config, data)
    facts = _facts(config, data, task, folder)
    resolved = with_monitors(config, task.headline)
    check_monitors(resolved, metric_names.keys(task.name, ("train", "val"), task.needs_met, own_metrics(config)))
    module, traits, notes = _build_module(resolved, data, task, facts, checkpoint)
    facts["backbone_frozen"] = getattr(module.model, "backbone_frozen", False)
    trainer = _build_trainer(resolved, facts, folder, traits, checkpoint)
    check_ranks(folder, trainer)
    if trainer.world_size == 1 and 1 in data.train_dataloader().sizes[: _batches(trainer, facts["batches_per_epoch"])]:
        try_one_image(module.model, data.image_shape)
    notes = [*precision_notes(config), *notes]
    notes += starting_notes(config, data, task, trainer, facts["batches_per_epoch"], resumes=checkpoint is not None)
    return Run(config, folder, data, module, trainer, checkpoint, notes)


def load_data(config: Config, seed: int, download: bool = True) -> ImageDataModule:
    """Build the data module and set it up. download: whether it may first download what is missing."""
    data = build(config["data"], "data", seed=seed, processes=_ranks_on_this_machine(config["trainer"]))
    if download:
        call(data.prepare_data, "data")
    try:
        call(data.setup, "data")
    except ConfigError as error:
        note = "" if download else "\n(nothing is downloaded for a run folder from elsewhere without trust_code=true)"
        raise ConfigError(f"{error}{note}") from error
    if isinstance(data.augment, Augment):
        call(data.augment.check, "data.augment", *data.image_shape[1:])
    return data


def _ranks_on_this_machine(trainer: Config) -> int:
    """Return how many processes will train here, which is asked before there is a Trainer."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len(devices.strip(",").split(","))
    if str(devices) in ("auto", "-1"):
        return 1 if trainer.get("accelerator") == "cpu" else max(1, torch.cuda.device_count())
    return int(devices)


def task_of_run(config: Config, data: ImageDataModule) -> Task:
    """Return the data's task with the config's costs and what the loss says; raise ConfigError if they do not go."""
    task = deepcopy(data.task)
    call(task.take_costs, "costs", config.get("costs") or {})
    if config["trainer"].get("precision") in HALF and not task.fits_half_precision:
        raise ConfigError(
            f"trainer.precision={config['trainer']['precision']} would round the values to be learned to 16 bits: take "
            f"{str(config['trainer']['precision']).replace('true', 'mixed')}"
        )
    if data.mix and not task.mixes:
        raise ConfigError(f"data.mix: images of a {task.name} task are not mixed: set data/mix=none")
    check_loss(config["loss"], task)
    views.check(config.get("tta"), task, f"tta={config.get('tta')}")
    return task


def _facts(config: Config, data: ImageDataModule, task: Task, folder: Path) -> Facts:
    """Return what is known once the data are there."""
    return {
        "task": task.name,
        "num_classes": task.outputs,
        "class_names": task.names,
        "class_counts": data.class_counts,
        "noise_matrix": data.noise_matrix,
        "cost_matrix": task.costs,
        "image_shape": data.image_shape,
        "batches_per_epoch": len(data.train_dataloader()),
        "all_metrics": metric_names.keys(task.name, metric_names.EVALUATED, task.needs_met, own_metrics(config)),
        "save_dir": str(folder),
        "dirpath": str(folder / names.CHECKPOINTS),
    }


def _build_module(
    config: Config, data: ImageDataModule, task: Task, facts: Facts, checkpoint: Checkpoint | None
) -> tuple[TrainingModule, Traits, list[str]]:
    """Return the module, the traits of its optimizer, and lines for the log."""
    node = config["model"] if checkpoint is None else without_pretrained(config["model"])
    model = build(node, "model", **facts)
    notes = [model.weights_note] if getattr(model, "weights_note", None) else []
    statistics = getattr(model, "pixel_statistics", None)
    start: Start | None = None
    if config.get("init_from") and checkpoint is None:
        start = of_another_run(model, Path(config["init_from"]))
        statistics = start.statistics
        notes.append(start.note)
    if checkpoint is not None:
        statistics = checkpoint.description.mean, checkpoint.description.std
    if statistics is not None and len(statistics[0]) == data.image_shape[0]:
        data.normalise_with(*statistics)
    if checkpoint is None:
        show_training_images(model, data)
    if start is not None:
        model.load_state_dict(start.weights, strict=False)
    loss = build(config["loss"], "loss", **facts, logit_scale=logit_scale(model))
    task.take_loss(loss)
    with refusing_wrong_gradients(model, config["trainer"]):
        outputs = try_model(model, data.image_shape, task)
    if checkpoint is not None:
        check_same_model(model, checkpoint)
    try_loss(deepcopy(loss), outputs, task, mixed=data.mix is not None)
    measured = metric_names.keys(task.name, metric_names.EVALUATED, task.needs_met)
    metrics = _own_metrics(build(config.get("metrics"), "metrics", **facts), measured)
    if config["compile"]:
        model.compile()
    optimizer = build(config["optimizer"], "optimizer", **facts)
    scheduler = build(config["scheduler"], "scheduler", **facts)
    traits = try_optimizer(optimizer, scheduler)
    if traits.finds_step_sizes and getattr(model, "lr_scales", None):
        rates = "bias_lr must be 1" if config["model"].get("layer_decay") is None else "layer_decay must be null"
        raise ConfigError(f"model.{rates} for an optimizer that finds its step sizes itself")
    mean, std = list(data.mean), list(data.std)
    shape, resize = list(data.image_shape), data.resize
    description = Description(config, image_shape=shape, mean=mean, std=std, resize=resize, **task.description)
    module = TrainingModule(model, loss, optimizer, scheduler, description.to_dict(), task, metrics, config.get("tta"))
    if config["trainer"].get("precision") in DOUBLE:
        module.double()  # before a checkpoint is restored: Lightning's plugin does so after it
    return module, traits, notes


def _build_trainer(
    config: Config, facts: Facts, folder: Path, traits: Traits, checkpoint: Checkpoint | None
) -> Trainer:
    callbacks = _enabled(build(config.get("callbacks"), "callbacks", **facts))
    callbacks = [one for one in callbacks if not getattr(one, "is_disabled", False)]  # the bar without a terminal
    if traits.averages_weights and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ConfigError("callbacks: a schedule-free optimizer averages the weights already: leave out ema")
    first_step = checkpoint.global_step if checkpoint is not None else 0
    trainer = build(
        config["trainer"],
        "trainer",
        callbacks=callbacks,
        logger=_enabled(build(config.get("logger"), "logger", **facts, first_step=first_step)),
        plugins=[AtomicCheckpointIO(checkpoint)],
        default_root_dir=str(folder),
        enable_checkpointing=any(isinstance(callback, CheckpointCallback) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    if isinstance(trainer.profiler, PassThroughProfiler):
        trainer.profiler = NoProfiler()
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise ConfigError("trainer.max_epochs=-1 has no end that a schedule could be fitted to: give a number")
    if checkpoint is not None and len(checkpoint.ranks) != trainer.world_size:
        raise UserError(
            f"trainer.devices: the run was begun by {len(checkpoint.ranks)} processes, which decides its steps, and "
            f"there are {trainer.world_size} now; go on with as many, or start anew with init_from"
        )
    return trainer


def _batches(trainer: Trainer, count: int) -> int:
    """Return how many of the batches of an epoch are trained."""
    limit = trainer.limit_train_batches
    return int(limit * count) if isinstance(limit, float) else limit


def _enabled(options: dict[str, Any] | None) -> list[Any]:
    """Return callbacks or loggers without those that are set to null."""
    return [option for option in (options or {}).values() if option is not None]


def _own_metrics(metrics: dict[str, Any] | None, measured: Sequence[str]) -> dict[str, Metric]:
    """Return the user's own metrics by the names under which they are logged. measured: the keys of the task's."""
    found: dict[str, Metric] = {}
    for key, metric in (metrics or {}).items():
        name = metric_name(key, vars(metric))
        if name in found or f"val/{name}" in measured:
            raise ConfigError(f"metrics.{key}: there is a metric named {name} already; give the function another name")
        found[name] = metric
    return found
