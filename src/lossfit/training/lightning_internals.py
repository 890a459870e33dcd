"""Every use of a private or undocumented part of Lightning, in one place.

Each says in which version of Lightning it was read, and which test fails without it; pyproject.toml admits no later
minor version. To admit one, read these parts in it again and run those tests.
"""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_only

SubprocessScriptLauncher = _SubprocessScriptLauncher  # 2.6.6; tests/test_ranks.py


def process_rank() -> int:
    """Return the rank that Lightning takes from the environment when it is imported, before there is a trainer.

    2.6.6, utilities/rank_zero.py; tests/test_ranks.py.
    """
    return rank_zero_only.rank  # type: ignore[attr-defined]


def set_launcher(trainer: Trainer, launcher: _SubprocessScriptLauncher) -> None:
    """Give the trainer another launcher of its ranks. 2.6.6, strategies/strategy.py; tests/test_ranks.py."""
    trainer.strategy._launcher = launcher


def original_signal_handlers(trainer: Trainer) -> dict[int, Any]:
    """Return the handlers from before Lightning set its own.

    Lightning's SIGTERM handler broadcasts, and deadlocks if other ranks are in another collective. 2.6.6,
    trainer/connectors/signal_connector.py; tests/test_resume.py and test_ranks.py.
    """
    return dict(trainer._signal_connector._original_handlers)


def epochs_done(trainer: Trainer) -> int:
    """Return how many epochs are complete, while one of Lightning's hooks at the end of an epoch runs.

    2.6.6, loops/fit_loop.py; tests/test_resume.py.
    """
    return trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]


def uses_grad_scaler(trainer: Trainer) -> bool:
    """Whether gradients are scaled, as with float16. 2.6.6, plugins/precision/amp.py; tests/test_engine.py."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def leave_restored_epoch(loop: _FitLoop) -> None:
    """After a restore from the end of an epoch, go on with the next epoch.

    Lightning would run the end of the restored epoch once more. 2.6.6, loops/fit_loop.py; tests/test_resume.py.
    """
    if not loop.restarting or loop.restarted_mid_epoch:
        return
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
    total: Any = loop.epoch_progress.total
    total.ready = total.started  # the next epoch has not started
    clear_restarting(loop)
    loop.reset_restart_stage()
    loop.epoch_loop.reset_restart_stage()


def clear_restarting(loop: _FitLoop) -> None:
    """Clear `restarting` on the loop and its children.

    If it stays set, Lightning skips the plateau schedule at the end of a resumed epoch. _FitLoop's own setter keeps it
    set under max_steps, so the base class's is called. 2.6.6, loops/loop.py; tests/test_resume.py.
    """
    vars(_Loop)["restarting"].fset(loop, False)


def ends_or_validates_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the epoch ends or a validation starts after this batch: a state between the two cannot be restored.

    Repeats the rule of 2.6.6, loops/training_epoch_loop.py `_should_check_val_fx`; tests/test_resume.py.
    """
    every = trainer.val_check_batch
    count = batch_idx if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx
    last = batch_idx + 1 >= trainer.num_training_batches
    return last or (isinstance(every, int) and (count + 1) % every == 0)


def allow_unused_parameters(trainer: Trainer) -> None:
    """Let DistributedDataParallel leave out parameters that a step does not use; before the model is wrapped.

    2.6.6, strategies/ddp.py; tests/test_finetuning.py.
    """
    trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
