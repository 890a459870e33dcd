"""Train what a run folder's config.yaml says: build the parts, fit, test the best checkpoint, write the result."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from lossfit import checkpoints, locks, runs, schedules
from lossfit.callbacks import Pruning
from lossfit.checkpoints import AtomicCheckpointIO
from lossfit.config import Config, build, call, check
from lossfit.costs import cost_matrix
from lossfit.data import InMemoryDataModule
from lossfit.distributed import cleaned_up, start_ranks_from
from lossfit.errors import ConfigError, UserError
from lossfit.models.head import logit_scale
from lossfit.module import Classifier
from lossfit.optim.schedule_free import ScheduleFree

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for those who only look whether a run is being trained


def train(folder: Path) -> dict[str, float]:
    """Train the run in `folder` to its end and return its final metrics; every rank of a distributed run calls this.

    A run that was begun goes on from its last checkpoint, to the same bits as if it had not stopped. Raises ConfigError
    for a config that cannot be built, UserError for a folder that cannot be trained (on), or that another process is
    training, RunError for a run that fails, Interrupted for one that is asked to stop; result.json says so too.
    """
    config = runs.read_config(folder)
    begun = _begun(folder, config)
    other_node = "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") != "0"  # torchrun's RANK is of all nodes
    if rank_zero_only.rank > 0 or other_node:  # type: ignore[attr-defined]
        with runs.logged(folder, main=False):
            return _train(folder, config, begun, {"metrics": {}, "timings": {}})
    with locks.held(folder, PATIENCE), runs.logged(folder, main=True), runs.recorded(folder, config) as result:
        return _train(folder, config, begun, result)


def resume(path: str | Path, config: Config, overrides: Sequence[str]) -> Path:
    """Prepare a run folder to be trained on, and return it; `config` has the values that `overrides` gave.

    path: a run folder, which goes on from its last.ckpt, or another checkpoint in it to go on from. Raises UserError,
    with nothing changed, for what cannot go on.
    """
    path, folder = Path(path), runs.folder_of(path)
    overrides = [override for override in overrides if not override.startswith("resume=")]
    changed = runs.changed(folder, config, overrides)
    check(changed)
    _check_accelerator(changed["trainer"])
    _begun(folder, changed, path if path.suffix == ".ckpt" else None)
    runs.take_up(folder, path, changed, overrides)
    return folder


def _begun(folder: Path, config: Config, file: Path | None = None) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, `file` or the last; refuse a run that has nothing left to do."""
    completed = runs.status(folder) in runs.DONE
    file = file or folder / "checkpoints" / "last.ckpt"
    if not file.exists():
        if completed:
            raise UserError(f"{folder} is complete, and has no {file.name} to go on from")
        return None
    checkpoint = checkpoints.read(file)
    done, wanted = checkpoint["epochs"], config["trainer"].get("max_epochs")
    then = checkpoint["hyper_parameters"]["config"]["trainer"].get("max_epochs")
    if wanted is not None and wanted != -1 and done > wanted:
        raise UserError(f"trainer.max_epochs={wanted}: {folder} has trained {done} epochs already")
    if completed and file.name == "last.ckpt" and wanted == then:
        raise UserError(f"{folder} is complete after {done} epochs: trainer.max_epochs={2 * done} would train it on")
    return checkpoint


def _train(folder: Path, config: Config, begun: dict[str, Any] | None, result: dict[str, Any]) -> dict[str, float]:
    check(config)
    data, module, trainer = parts(config, folder, begun)
    start_ranks_from(folder, trainer, lambda reason: runs.write_failed(folder, reason))
    with cleaned_up(trainer):
        result["parameters"] = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
        log.info("%s", _summary(config, data, result["parameters"], trainer))
        if begun is not None:
            log.info("%s", _resumption(config, begun))
        if data.changes:
            runs.write_json(folder / "data_changes.json", data.changes)
        last = folder / "checkpoints" / "last.ckpt" if begun is not None else None
        with _timed(result, "fit_s"):
            trainer.fit(module, data, ckpt_path=last, weights_only=True)
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        metrics = rounded(begun["metrics"] if begun is not None else {}) | rounded(trainer.callback_metrics)
        result |= {"epochs": trainer.current_epoch, "steps": trainer.global_step, "metrics": metrics}
        if best:
            checkpoint = checkpoints.read(Path(best))
            result |= {"best_epoch": checkpoint["epochs"], "metrics": metrics | rounded(checkpoint["metrics"])}
            module.load_state_dict(checkpoint["state_dict"])  # an average, where one was kept
        pruned = next((one.reason for one in trainer.callbacks if isinstance(one, Pruning) and one.reason), None)  # type: ignore[attr-defined]
        if pruned:
            result |= {"status": "pruned", "reason": pruned}
        elif config["test"]:
            with _timed(result, "test_s"):
                trainer.test(module, data, verbose=False)
            result["metrics"] |= rounded(trainer.callback_metrics)
        for line in _ending(folder, result):
            log.info("%s", line)
    return result["metrics"]


def _resumption(config: Config, begun: dict[str, Any]) -> str:
    trained = begun["hyper_parameters"]["config"]["trainer"]["max_epochs"]
    text = f"Going on after {begun['epochs']} epochs and {begun['global_step']} steps"
    if config["trainer"].get("max_epochs") != trained:
        text += f"; max_epochs was {trained}: the schedule is fitted anew to {config['trainer'].get('max_epochs')}"
    return text


def parts(
    config: Config, folder: Path, begun: dict[str, Any] | None = None
) -> tuple[InMemoryDataModule, Classifier, Trainer]:
    """Build the data module, already set up, the classifier and the trainer of a run, by its seed.

    begun: the checkpoint that the run will go on from.
    """
    seed = config["seed"] or 0  # a run folder's is drawn where the config leaves it open
    seed_everything(seed, workers=True, verbose=False)
    _check_accelerator(config["trainer"])
    data: InMemoryDataModule = build(config["data"], "data", seed=seed)
    call(data.prepare_data, "data")
    call(data.setup, "data")
    facts = {name: getattr(data, name) for name in ("num_classes", "class_names", "class_counts", "image_shape")}
    facts |= {"save_dir": str(folder), "dirpath": str(folder / "checkpoints")}
    model = build(config["model"], "model", **facts)
    if config.get("init_from") and begun is None:
        log.info("%s", start_from(model, Path(config["init_from"])))
    costs = call(cost_matrix, "costs", config.get("costs") or {}, data.class_names)
    loss = build(config["loss"], "loss", **facts, cost_matrix=costs, logit_scale=logit_scale(model))
    labels = torch.tensor([0, 1])
    call(loss, "loss", _trial_logits(model, data), F.one_hot(labels, data.num_classes).float() if data.mix else labels)
    if config["compile"]:
        model.compile()
    optimizer = build(config["optimizer"], "optimizer", **facts, batches_per_epoch=len(data.train_dataloader()))
    scheduler = build(config["scheduler"], "scheduler", **facts)
    trial = call(optimizer, "optimizer", [nn.Parameter(torch.zeros(1, 1))])
    call(scheduler, "scheduler", trial, total_steps=100)
    if getattr(trial, "unscheduled", False) and scheduler.func is not schedules.none:
        name = type(trial).__name__
        raise ConfigError(f"scheduler must be none with {name}, on which a falling lr is lost: set scheduler=none")
    hparams = {
        "config": config,
        "class_names": list(data.class_names),
        "image_shape": list(data.image_shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "link": loss.link,
        "costs": costs,
    }
    module = Classifier(model, loss, optimizer, scheduler, hparams, costs)
    callbacks = _given(build(config.get("callbacks"), "callbacks", **facts))
    if isinstance(trial, ScheduleFree) and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ConfigError("callbacks: a schedule-free optimizer averages the weights already: leave out ema")
    trainer = build(
        config["trainer"],
        "trainer",
        callbacks=callbacks,
        logger=_given(build(config.get("logger"), "logger", **facts, first_step=begun["global_step"] if begun else 0)),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(folder),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    return data, module, trainer


def _given(options: dict[str, Any] | None) -> list[Any]:
    return [option for option in (options or {}).values() if option is not None]


def start_from(model: nn.Module, path: Path) -> str:
    """Copy a trained run's weights into a new model where name and shape agree; say what was left out.

    Raises ConfigError where none fit.
    """
    file = checkpoints.find(path)
    found = checkpoints.weights(checkpoints.read(file))
    own = model.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ConfigError(f"init_from={path}: none of its weights fit this model")
    model.load_state_dict(fitting, strict=False)
    left = [name for name in own if name not in fitting]
    return f"Weights from {file}" + (f"; anew, since they differ in name or shape: {', '.join(left)}" if left else "")


def _check_accelerator(trainer: Config) -> None:
    wanted = trainer.get("accelerator", "auto")
    available = {"gpu": torch.accelerator.is_available(), "cuda": torch.cuda.is_available()}
    available |= {"mps": torch.backends.mps.is_available(), "tpu": find_spec("torch_xla") is not None}
    if not available.get(wanted, True):
        raise ConfigError(
            f"trainer.accelerator={wanted}: torch {torch.__version__} finds no such device on this machine; "
            f"take trainer=cpu, or trainer=auto for the best there is"
        )


def _trial_logits(model: nn.Module, data: InMemoryDataModule) -> torch.Tensor:
    """Return the logits of two random images; refuse a model that cannot take them or gives something else."""
    shape = "x".join(map(str, data.image_shape))
    training = model.training
    try:
        with torch.no_grad():
            logits = model.eval()(torch.randn(2, *data.image_shape, generator=torch.Generator().manual_seed(0)))
    except Exception as error:
        raise ConfigError(
            f"model: cannot take images of {shape}: {error}; for torchvision's models set model.resize=224"
        ) from error
    finally:
        model.train(training)
    if not isinstance(logits, torch.Tensor) or logits.shape != (2, data.num_classes):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"model: must give logits (N, {data.num_classes}), got {got} for two images")
    if (logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(2)):
        raise ConfigError("model: gives probabilities, and the loss needs logits: leave out its last softmax")
    return logits


def _summary(config: Config, data: InMemoryDataModule, parameters: int, trainer: Trainer) -> str:
    sizes = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in data.splits.items())
    choices = config.get("choices", {})
    named = [f"{part} {choices[part]}" for part in ("model", "loss", "optimizer", "scheduler") if part in choices]
    device = f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}"
    return " | ".join([*named, f"{parameters:,} parameters", f"images {sizes}", device])


def _ending(folder: Path, result: dict[str, Any]) -> list[str]:
    metrics = result["metrics"]
    lines = [f"{result['reason'].capitalize()}"] if result.get("status") == "pruned" else []
    if "test/acc" in metrics:
        at = f" (best of {result['epochs']} epochs: {result['best_epoch']})" if "best_epoch" in result else ""
        cost = f", cost {metrics['test/cost']:.4f}" if "test/cost" in metrics else ""
        lines.append(f"Test accuracy {metrics['test/acc']:.4f}, nll {metrics['test/nll']:.4f}{cost}{at}")
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return [*lines, f"Run folder    {shown}", f"Curves        tensorboard --logdir {shown}"]


def rounded(metrics: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Return metrics as numbers for a file."""
    return {name: float(f"{float(value):.7g}") for name, value in metrics.items()}  # float32's digits


@contextmanager
def _timed(result: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result["timings"][name] = round(time.perf_counter() - start, 3)
