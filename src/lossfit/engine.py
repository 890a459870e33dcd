"""Train what a run folder's config.yaml says: build the parts, fit, test the best checkpoint, write the result."""

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, WeightAveraging
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torchmetrics import Metric

from lossfit import checkpoints, locks, runs, schedules, trust
from lossfit.checkpoints import AtomicCheckpointIO
from lossfit.config import Config, build, call, check, metric_name
from lossfit.costs import cost_matrix
from lossfit.data import InMemoryDataModule
from lossfit.distributed import check_ranks, cleaned_up, start_ranks_from
from lossfit.errors import ConfigError, UserError
from lossfit.loggers import TensorBoardLogger
from lossfit.models.closed import difference, without_pretrained
from lossfit.models.head import logit_scale
from lossfit.module import Classifier
from lossfit.optim.schedule_free import ScheduleFree

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds for those who only look whether a run is being trained


@dataclass
class Run:
    """The parts of a run, built and tried; begun is the checkpoint that it goes on from."""

    config: Config
    folder: Path
    data: InMemoryDataModule
    module: Classifier
    trainer: Trainer
    begun: dict[str, Any] | None
    notes: list[str]  # of what was done while building, for the log


def start(folder: Path, config: Config, overrides: Sequence[str]) -> dict[str, float]:
    """Make a run folder for a config that the person composed, train, and return the final metrics.

    Everything is built before the folder is made, so that a config that is refused leaves none. Raises what `train`
    does.
    """
    runs.check_free(folder)
    config = runs.with_seed(config)
    check(config)
    with runs.logged(None, main=True):
        run = build_run(config, folder)
    runs.create(folder, config, overrides, checked=True)
    with locks.held(folder, PATIENCE):
        return _record(run)


def train(folder: Path) -> dict[str, float]:
    """Train the run in `folder` to its end and return its final metrics; every rank of a distributed run calls this.

    A run that was begun goes on from its last checkpoint, to the same bits as if it had not stopped. Raises ConfigError
    for a config that cannot be built, UserError for a folder that cannot be trained (on), or that another process is
    training, with nothing in the folder changed; RunError for a run that fails, Diverged for one whose loss does not
    stay finite, Interrupted for one that is asked to stop; result.json says so too.
    """
    other_node = "RANK" not in os.environ and os.environ.get("NODE_RANK", "0") != "0"  # torchrun's RANK is of all nodes
    if rank_zero_only.rank > 0 or other_node:  # type: ignore[attr-defined]
        with runs.logged(folder, main=False):
            return _fit(_prepared(folder, runs.read_config(folder)), {"metrics": {}, "timings": {}})
    runs.read_config(folder)  # before the lock, which would make a folder
    with locks.held(folder, PATIENCE):
        with runs.logged(None, main=True):
            run = _prepared(folder, runs.read_config(folder))
        return _record(run)


def resume(path: str | Path, config: Config, overrides: Sequence[str]) -> dict[str, float]:
    """Train a run on; `config` has the values that `overrides` gave.

    path: a run folder, which goes on from its last.ckpt, or another checkpoint in it to go on from. Raises UserError,
    with nothing changed, for what cannot go on, and what `train` raises.
    """
    path, folder = Path(path), runs.folder_of(path)
    overrides = [override for override in overrides if override.split("=")[0] not in ("resume", "trust_code")]
    checkpoint = path if path.suffix == ".ckpt" else None
    with locks.held(folder, PATIENCE):
        changed = runs.changed(folder, config, overrides)
        with runs.logged(None, main=True):
            run = _prepared(folder, changed, checkpoint)
        return _record(run, lambda: runs.apply_resume(folder, checkpoint, changed, overrides))


def rehearse(configs: Iterable[Config]) -> list[str]:
    """Build and try all parts of runs, without folders; return what `start` would refuse the configs for, each once."""
    mistakes: dict[str, None] = {}
    node: Any = None
    data: InMemoryDataModule | None = None  # of the config before: reading it is what takes time
    for config in configs:
        try:
            run = build_run(runs.with_seed(config), Path("rehearsal"), data=data if config["data"] == node else None)
        except UserError as error:
            mistakes[str(error)] = None
        else:
            node, data = config["data"], run.data
    return list(mistakes)


def _prepared(folder: Path, config: Config, checkpoint: Path | None = None) -> Run:
    """Build what a run folder describes; change nothing in it."""
    if not runs.is_trusted(folder):
        trust.check(config, folder)
    check(config)
    return build_run(config, folder, _begun(folder, config, checkpoint))


def _begun(folder: Path, config: Config, file: Path | None = None) -> dict[str, Any] | None:
    """Return the checkpoint to go on from, `file` or the last; refuse a run that has nothing left to do."""
    status = runs.status(folder)
    if status == "diverged":
        raise UserError(
            f"{folder} diverged ({runs.read_result(folder).get('reason')}), and would again: start a new run with a "
            f"smaller optimizer.lr"
        )
    completed = status in runs.DONE
    file = file or folder / "checkpoints" / "last.ckpt"
    if not file.exists():
        if completed:
            raise UserError(f"{folder} is complete, and has no {file.name} to go on from")
        return None
    checkpoint = checkpoints.read_to_resume(file)
    done, wanted = checkpoint["epochs"], config["trainer"].get("max_epochs")
    then = checkpoint["hyper_parameters"]["config"]["trainer"].get("max_epochs")
    if wanted is not None and wanted != -1 and done > wanted:
        raise UserError(f"trainer.max_epochs={wanted}: {folder} has trained {done} epochs already")
    if completed and file.name == "last.ckpt" and wanted == then:
        raise UserError(f"{folder} is complete after {done} epochs: trainer.max_epochs={2 * done} would train it on")
    return checkpoint


def _record(run: Run, apply: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Train, and write how it ended. apply: writes what a resumed run changes in its folder."""
    with runs.logged(run.folder, main=True), runs.recorded(run.folder, run.config) as result:
        apply()
        return _fit(run, result)


def _fit(run: Run, result: dict[str, Any]) -> dict[str, float]:
    folder, config, data, module, trainer, begun = run.folder, run.config, run.data, run.module, run.trainer, run.begun
    start_ranks_from(folder, trainer, lambda reason: runs.write_failed(folder, reason))
    with cleaned_up(trainer):
        result["parameters"] = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
        for line in [*run.notes, *_summary(config, data, result["parameters"], trainer, begun)]:
            log.info("%s", line)
        _announce_missing_callbacks(config)
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
        stopped = [getattr(callback, "stopping_reason_message", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
        result["reason"] = next(filter(None, stopped), None)
        if any(getattr(callback, "pruned", False) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            result["status"] = "pruned"
        elif config["test"]:
            with _timed(result, "test_s"):
                trainer.test(module, data, verbose=False)
            result["metrics"] |= rounded(trainer.callback_metrics)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_result(result["metrics"], trainer.global_step)
        for line in _ending(folder, result):
            log.info("%s", line)
    return result["metrics"]


def _resumption(config: Config, begun: dict[str, Any]) -> str:
    trained = begun["hyper_parameters"]["config"]["trainer"].get("max_epochs")
    text = f"Going on after {begun['epochs']} epochs and {begun['global_step']} steps"
    if config["trainer"].get("max_epochs") != trained:
        text += f"; max_epochs was {trained}: the schedule is fitted anew to {config['trainer'].get('max_epochs')}"
    return text


def build_run(
    config: Config, folder: Path, begun: dict[str, Any] | None = None, data: InMemoryDataModule | None = None
) -> Run:
    """Build the data module, already set up, the classifier and the trainer of a run, by its seed, and try them.

    begun: the checkpoint that the run will go on from. data: the data module, if it is set up already. Nothing is
    written into the folder.
    """
    seed = config["seed"] or 0  # a run folder's is drawn where the config leaves it open
    seed_everything(seed, workers=True, verbose=False)
    _check_accelerator(config["trainer"])
    if data is None:
        data = build(config["data"], "data", seed=seed)
        call(data.prepare_data, "data")
        call(data.setup, "data")
    facts = {name: getattr(data, name) for name in ("num_classes", "class_names", "class_counts", "image_shape")}
    facts |= {"save_dir": str(folder), "dirpath": str(folder / "checkpoints")}
    node = config["model"] if begun is None else without_pretrained(config["model"])
    model = build(node, "model", **facts)
    fresh = config.get("init_from") and begun is None
    notes = [start_from(model, Path(config["init_from"]))] if fresh else []
    costs = call(cost_matrix, "costs", config.get("costs") or {}, data.class_names)
    loss = build(config["loss"], "loss", **facts, cost_matrix=costs, logit_scale=logit_scale(model))
    logits = _trial_logits(model, data)
    if begun is not None:
        _check_same_model(model, begun)
    _try_loss(deepcopy(loss), logits, data)
    metrics = _named(build(config.get("metrics"), "metrics", **facts))
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
    module = Classifier(model, loss, optimizer, scheduler, hparams, costs, metrics)
    if config["trainer"].get("precision") in ("64-true", 64, "64"):
        module.double()  # before a checkpoint is restored: Lightning's plugin does so after it
    callbacks = _given(build(config.get("callbacks"), "callbacks", **facts))
    if isinstance(trial, ScheduleFree) and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ConfigError("callbacks: a schedule-free optimizer averages the weights already: leave out ema")
    trainer = build(
        config["trainer"],
        "trainer",
        callbacks=callbacks,
        logger=_given(build(config.get("logger"), "logger", **facts, first_step=begun["global_step"] if begun else 0)),
        plugins=[AtomicCheckpointIO(begun)],
        default_root_dir=str(folder),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        raise ConfigError("trainer.max_epochs=-1 has no end that a schedule could be fitted to: give a number")
    if begun is not None and len(begun["ranks"]) != trainer.world_size:
        raise UserError(
            f"trainer.devices: the run was begun by {len(begun['ranks'])} processes, which decides its steps, and "
            f"there are {trainer.world_size} now; go on with as many, or start anew with init_from"
        )
    check_ranks(folder, trainer)
    return Run(config, folder, data, module, trainer, begun, notes)


def _check_same_model(model: nn.Module, begun: dict[str, Any]) -> None:
    """Refuse to go on with other weights than the checkpoint's, as after a change of the code."""
    if differs := difference(model.state_dict(), checkpoints.weights(begun)):
        name, own, kept = differs
        raise UserError(
            f"model: the run cannot go on, since the model has changed: {name} has the shape {own}, and {kept} in the "
            f"checkpoint; init_from takes the weights that still fit"
        )


def _given(options: dict[str, Any] | None) -> list[Any]:
    return [option for option in (options or {}).values() if option is not None]


def start_from(model: nn.Module, path: Path) -> str:
    """Copy a trained run's weights into a new model where name and shape agree; say what was left out.

    Raises ConfigError where none fit.
    """
    file = checkpoints.find(path)
    found = checkpoints.weights(checkpoints.read(file))
    own = model.state_dict()
    fitting = {n: value for n, value in found.items() if n in own and not difference({n: value}, {n: own[n]})}
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


def _try_loss(loss: nn.Module, logits: torch.Tensor, data: InMemoryDataModule) -> None:
    """Compute the loss of two samples; refuse one that no training could start with."""
    labels = torch.tensor([0, 1])
    target = F.one_hot(labels, data.num_classes).float() if data.mix else labels
    value = call(loss, "loss", logits.requires_grad_().clone(), target)  # which it may write into
    if not value.is_floating_point() or not value.requires_grad:
        raise ConfigError(
            f"loss: its value has {'no gradient' if value.is_floating_point() else f'dtype {value.dtype}'}: compute it "
            f"from the logits with torch's functions, without detach, argmax, item or numpy"
        )
    if not value.isfinite():
        raise ConfigError(f"loss: its value is {value.item():g} for the untrained model's outputs of two images")


def _named(metrics: dict[str, Any] | None) -> dict[str, Metric]:
    """Return a config's own metrics by the names under which they are logged."""
    found: dict[str, Metric] = {}
    for key, metric in (metrics or {}).items():
        name = metric_name(key, vars(metric))
        if name in (*found, "loss", "nll", "acc", "cost", "cost_argmax"):
            raise ConfigError(f"metrics.{key}: there is a metric named {name} already; give the function another name")
        found[name] = metric
    return found


def _announce_missing_callbacks(config: Config) -> None:
    """Warn of a run that keeps no checkpoint or says nothing, most often because callbacks= replaced the defaults."""
    given, chosen = config.get("callbacks") or {}, config.get("choices", {}).get("callbacks")
    effects = {
        "checkpoint": "best.ckpt is not kept, and the last weights are tested",
        "last_checkpoint": "the run cannot be resumed",
        "epoch_report": "no line is printed after each epoch",
    }
    missing = [f"without {name} {effect}" for name, effect in effects.items() if name not in given]
    if missing and chosen:
        log.warning(
            "callbacks=%s replaces the default callbacks: %s; +callbacks=%s adds to them",
            chosen,
            ", ".join(missing),
            chosen,
        )


def _summary(
    config: Config, data: InMemoryDataModule, parameters: int, trainer: Trainer, begun: dict[str, Any] | None
) -> list[str]:
    sizes = ", ".join(f"{len(labels):,} {split}" for split, (_, labels) in data.splits.items())
    choices = config.get("choices", {})
    named = [f"{part} {choices[part]}" for part in ("model", "loss", "optimizer", "scheduler") if part in choices]
    source = f" from {data.source}" if data.source else ""
    device = f"{trainer.world_size} x {trainer.strategy.root_device.type}, precision {trainer.precision}"
    lines = [" | ".join([*named, f"{parameters:,} parameters", f"images {sizes}{source}", device])]
    return [*lines, _resumption(config, begun)] if begun is not None else lines


def _ending(folder: Path, result: dict[str, Any]) -> list[str]:
    metrics = result["metrics"]
    lines = [result["reason"][0].upper() + result["reason"][1:]] if result.get("reason") else []
    if "test/acc" in metrics:
        at = f" (best of {result['epochs']} epochs: {result['best_epoch']})" if "best_epoch" in result else ""
        cost = f", cost {metrics['test/cost']:.4f}" if "test/cost" in metrics else ""
        lines.append(f"Test accuracy {metrics['test/acc']:.4f}, nll {metrics['test/nll']:.4f}{cost}{at}")
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return [*lines, f"Run folder    {shown}", f"Curves        tensorboard --logdir {shlex.quote(str(shown))}"]


def rounded(metrics: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Return metrics as numbers for a file."""
    return {name: float(f"{float(value):.7g}") for name, value in metrics.items()}  # float32's digits


@contextmanager
def _timed(result: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result["timings"][name] = round(time.perf_counter() - start, 3)
