"""Train what a run folder's config.yaml says: build the run, fit, test the best checkpoint, write the result."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lossfit import overrides as override_keys
from lossfit import runs
from lossfit.config import Config, check
from lossfit.data import ImageDataModule
from lossfit.errors import UserError
from lossfit.loggers import TensorBoardLogger
from lossfit.plain_values import float32_digits
from lossfit.runs import checkpoints, names, trust
from lossfit.runs.checkpoint_schema import Checkpoint
from lossfit.runs.diagnosed import found_names
from lossfit.system import files, locks, ranks
from lossfit.training.build import Run, build_run
from lossfit.training.lightning_internals import process_rank
from lossfit.training.messages import circumstances, closing_lines, opening_lines, say, warn_of_missing_callbacks
from lossfit.training.rank_launcher import torn_down, use_run_folder_launcher

PATIENCE = 2.0  # seconds to wait for the lock: `locks.is_held` takes it for a moment to test it


def execute(
    folder: Path, config: Config, overrides: Sequence[str], resume_from: str | None, in_sweep: bool
) -> dict[str, float]:
    """Do what a command line says, and return the final metrics.

    resume_from: the run or checkpoint to continue; None for a new run in `folder`. in_sweep: whether this is a job of a
    sweep, whose sweeper may have made the folder. A further rank that torchrun or srun started waits for rank 0 to make
    it. Raises what `start`, `train` and `resume` do, and then leaves no empty folder.
    """
    rank, _ = ranks.started_rank() or (0, 1)
    with runs.removed_if_empty(folder):
        if resume_from is not None:
            return resume(resume_from, config, overrides)
        if rank > 0:
            return train(runs.wait_for(folder))
        if in_sweep and runs.is_made_for(folder, overrides):
            return train(folder)
        return start(folder, config, overrides)


def start(folder: Path, config: Config, overrides: Sequence[str]) -> dict[str, float]:
    """Make a run folder for a config that the user composed, train, and return the final metrics.

    Everything is built before the folder is made, so that a config that is refused leaves none. Raises what `train`
    does.
    """
    runs.check_free(folder)
    config = runs.with_seed(config)
    check(config)
    with runs.logging_into(None, main=True) as said:
        run = build_run(config, folder)
    runs.create(folder, run.config, overrides, checked=True)
    with locks.held(folder, PATIENCE):
        return _record(run, said)


def train(folder: Path) -> dict[str, float]:
    """Train the run in `folder` to its end and return its final metrics; every rank of a distributed run calls this.

    A run that has a last checkpoint goes on from it, and ends in the same bits as if it had not stopped. Raises
    ConfigError for a config that cannot be built, UserError for a folder that cannot be trained, or that another
    process is training, with nothing in the folder changed; RunError for a run that fails, Diverged for one whose loss
    does not stay finite, Interrupted for one that is asked to stop; result.json says so too.
    """
    if process_rank() > 0 or ranks.is_on_another_node():
        with runs.logging_into(folder, main=False):
            return _fit(_prepare(folder, runs.read_config(folder)), {"metrics": {}, "timings": {}})
    runs.read_config(folder)  # raises before the lock is taken, which would make a folder
    with locks.held(folder, PATIENCE):
        with runs.logging_into(None, main=True) as said:
            run = _prepare(folder, runs.read_config(folder))
        return _record(run, said, lambda: runs.apply_resume(folder, None, run.config))


def resume(path: str | Path, config: Config, overrides: Sequence[str]) -> dict[str, float]:
    """Continue a run, with the values that `config` has for the keys of `overrides`.

    path: a run folder, which goes on from its last.ckpt, or another checkpoint in it to go on from. Raises UserError,
    with nothing changed, for a run that cannot go on, and what `train` raises.
    """
    path, folder = Path(path), runs.folder_of(path)
    overrides = [text for text in overrides if override_keys.key(text) not in override_keys.COMMAND_KEYS]
    file = path if path.suffix == ".ckpt" else None
    with locks.held(folder, PATIENCE):
        changed = runs.with_overrides(folder, config, overrides)
        with runs.logging_into(None, main=True) as said:
            run = _prepare(folder, changed, file)
        typed = [*runs.read_overrides(folder), *overrides] if overrides else []
        return _record(run, said, lambda: runs.apply_resume(folder, file, run.config, typed))


def rehearse(configs: Iterable[Config]) -> list[str]:
    """Build the runs of configs, without folders; return the messages with which `start` would refuse, each once."""
    mistakes: dict[str, None] = {}
    node: Any = None
    data: ImageDataModule | None = None  # of the config before: most of the time is spent on reading it
    for config in configs:
        try:
            run = build_run(runs.with_seed(config), Path("rehearsal"), data=data if config["data"] == node else None)
        except UserError as error:
            mistakes[str(error)] = None
        else:
            node, data = config["data"], run.data
    return list(mistakes)


def _prepare(folder: Path, config: Config, file: Path | None = None) -> Run:
    """Build the run of a folder; change nothing in it."""
    if obstacle := runs.obstacle(folder):
        raise UserError(obstacle)
    trusted = runs.is_trusted(folder)
    if not trusted:
        trust.check(config, folder, resumes=(file or folder / names.LAST).exists())
    check(config)
    run = build_run(config, folder, _resume_checkpoint(folder, config, file), download=trusted)
    run.data.check_unchanged(folder)
    return run


def _resume_checkpoint(folder: Path, config: Config, file: Path | None = None) -> Checkpoint | None:
    """Return the checkpoint to go on from, `file` or the last; raise UserError for a run that has nothing left to do.

    None for a run that has not saved one.
    """
    status = runs.status(folder)
    if status == "diverged":
        raise UserError(
            f"{folder} diverged ({runs.read_result(folder).get('reason')}), and would again: start a new run with a "
            f"smaller optimizer.lr"
        )
    completed = status in runs.FINISHED
    last = folder / names.LAST
    file = file or last
    if not file.exists():
        if completed:
            raise UserError(f"{folder} is complete, and has no {file.name} to go on from")
        return None
    checkpoint = checkpoints.read_to_resume(file)
    done, wanted = checkpoint.epochs, config["trainer"].get("max_epochs")
    if wanted is not None and wanted != -1 and done > wanted:
        raise UserError(f"trainer.max_epochs={wanted}: {folder} has trained {done} epochs already")
    if completed and file.name == last.name and wanted == checkpoint.max_epochs:
        raise UserError(f"{folder} is complete after {done} epochs: trainer.max_epochs={2 * done} would train it on")
    return checkpoint


def _record(run: Run, said: Iterable[logging.LogRecord], apply: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Train, and write how it ended.

    said: the messages of its building, for train.log. apply: writes what this start of a run changes in its folder.
    """
    with runs.logging_into(run.folder, main=True, before=said), runs.recording_result(run.folder, run.config) as result:
        apply()
        return _fit(run, result)


def _fit(run: Run, result: dict[str, Any]) -> dict[str, float]:
    """Train and test on this rank, and fill in the result; return the metrics."""
    folder, trainer, module = run.folder, run.trainer, run.module
    use_run_folder_launcher(folder, trainer, lambda reason: runs.write_failed(folder, reason))
    with torn_down(trainer):
        result["headline"] = module.task.headline
        result["parameters"] = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
        result |= circumstances(run.config, run.data, trainer)
        say([*run.notes, *opening_lines(run.config, result, run.checkpoint)])
        warn_of_missing_callbacks(run.config)
        if trainer.is_global_zero:
            _write_data_files(folder, run.data)
        try:
            with _timed(result, "fit_s"):
                last = folder / names.LAST if run.checkpoint is not None else None
                trainer.fit(module, run.data, ckpt_path=last, weights_only=True)
        finally:
            result |= _findings(run)
        result |= {"epochs": trainer.current_epoch, "steps": trainer.global_step, "metrics": _final_metrics(run)}
        if best := getattr(trainer.checkpoint_callback, "best_model_path", ""):
            checkpoint = checkpoints.read(Path(best))
            result |= {"best_epoch": checkpoint.epochs, "metrics": result["metrics"] | rounded(checkpoint.metrics)}
            module.load_state_dict(checkpoint.state_dict)  # an average, if one was kept
        result["reason"] = _of_callbacks(run, "stopping_reason_message")
        if any(getattr(callback, "pruned", False) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            result["status"] = "pruned"
        elif run.config["test"]:
            with _timed(result, "test_s"):
                trainer.test(module, run.data, verbose=False)
            result["metrics"] |= rounded(trainer.callback_metrics)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_result(result["metrics"], trainer.global_step)
        say(closing_lines(folder, result, _of_callbacks(run, "findings_lines") or []))
    return result["metrics"]


def _write_data_files(folder: Path, data: ImageDataModule) -> None:
    """Write what the run folder keeps about its data."""
    if data.corruption_log:
        files.write_json(folder / names.CORRUPTIONS, data.corruption_log)
    for name, text in data.run_files.items():
        files.write(folder / name, text.encode(errors="surrogateescape"))  # a file name may be any bytes


def _final_metrics(run: Run) -> dict[str, float]:
    """Return the last epoch's metrics; those that it did not measure are the resumed checkpoint's."""
    before = run.checkpoint.metrics if run.checkpoint is not None else {}
    return rounded(before) | rounded(run.trainer.callback_metrics)


def _findings(run: Run) -> dict[str, list[str]]:
    """Return the names of the findings at the end, the gravest first; nothing for a run without a diagnosis.

    Those of a run that is resumed after its last epoch, which trains no step, are in its diagnosis.json.
    """
    found = _of_callbacks(run, "findings_at_end")
    if found is not None:
        return {"findings": found}
    diagnosed = (run.config.get("callbacks") or {}).get("diagnosis") is not None
    found = found_names(run.folder) if diagnosed and run.checkpoint is not None else None
    return {} if found is None else {"findings": found}


def _of_callbacks(run: Run, attribute: str) -> Any:
    """Return what the first callback that has it holds as an attribute; None if none has."""
    callbacks: list[Any] = run.trainer.callbacks  # type: ignore[attr-defined]
    return next((value for one in callbacks if (value := getattr(one, attribute, None)) is not None), None)


def rounded(metrics: Mapping[str, torch.Tensor | float]) -> dict[str, float]:
    """Return metrics, without those of single steps, as numbers with the seven digits of float32."""
    return {name: float32_digits(float(value)) for name, value in metrics.items() if not name.endswith("_step")}


@contextmanager
def _timed(result: dict[str, Any], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result["timings"][name] = round(time.perf_counter() - start, 3)
