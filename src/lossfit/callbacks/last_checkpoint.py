"""checkpoints/last.ckpt: everything that a run needs to be resumed, and then end in the same bits."""

import logging
import os
import random
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lossfit.data.batches import Batches
from lossfit.errors import Interrupted
from lossfit.ranges import Count, Positive, checked
from lossfit.runs import checkpoint_schema, names
from lossfit.system import signals
from lossfit.training import lightning_internals
from lossfit.training.module import TrainingModule

log = logging.getLogger(__name__)

AGREE_EVERY = 10  # steps between two collectives in which ranks agree to stop or save


class LastCheckpoint(Checkpoint):
    """Saves last.ckpt after each epoch, within it every n steps or minutes, and when the run is asked to stop.

    On Ctrl-C, SIGTERM or SIGUSR1, which schedulers send before a job's time is over, a run finishes its step, saves and
    raises Interrupted; a second signal ends it at once. Every checkpoint of the run, also of other callbacks, gets the
    random states of all ranks and the sums of the epoch so far.

    An epoch is saved at the start of the next one, because Lightning updates its schedules and metrics after the hooks
    at the end of an epoch. Lightning calls a `Checkpoint` callback after all others, so their states are current.
    """

    @checked
    def __init__(
        self, dirpath: str, every_n_steps: Count | None = None, every_n_minutes: Positive | None = None
    ) -> None:
        self.path = Path(os.path.realpath(dirpath)) / Path(names.LAST).name  # resolved, as Lightning's callbacks do
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.stop = False
        self.ranks: list[dict[str, Any]] = []  # of the checkpoint to resume
        self.handlers: dict[int, Any] = {}  # from before
        self.notice: threading.Thread | None = None  # prints that the run stops

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the state of each rank."""
        loader = trainer.train_dataloader
        own = {
            "random": random_states(),
            "batches": loader.state_dict() if isinstance(loader, Batches) else None,
            "should_stop": trainer.should_stop,
            **_classifier(pl_module).rank_state(),
            "callbacks": {name: part.rank_state() for name, part in _parts(trainer).items()},
        }
        ranks: list[Any] = [own]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        checkpoint_schema.add_ranks(checkpoint, ranks)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the ranks' states until training starts; replace the paths if the folder was moved."""
        restored = checkpoint_schema.Checkpoint.of(checkpoint)
        self.ranks, self.max_epochs = restored.ranks, restored.max_epochs
        for state in checkpoint["callbacks"].values():
            if isinstance(state, dict) and "dirpath" in state:
                state.update(_moved(state, self.path.parent))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what was loaded, and handle the stop signals."""
        self.saved_at, self.saved_step, self.last_step = time.monotonic(), trainer.global_step, trainer.global_step
        if self.ranks:
            own = self.ranks[trainer.global_rank]
            set_random_states(own["random"])
            if isinstance(trainer.train_dataloader, Batches):  # Lightning restores a loader before it makes it
                trainer.train_dataloader.load_state_dict(own["batches"])
            _classifier(pl_module).load_rank_state(own)
            for name, part in _parts(trainer).items():
                if name in own.get("callbacks", {}):
                    part.load_rank_state(own["callbacks"][name])
            more = trainer.max_epochs != self.max_epochs
            trainer.should_stop = own["should_stop"] and not more  # after early stopping
        lightning_internals.leave_restored_epoch(trainer.fit_loop)
        if threading.current_thread() is threading.main_thread():
            before = lightning_internals.original_signal_handlers(trainer)  # Lightning has set its own by now
            self.handlers = {number: before[number] for number in signals.STOP_SIGNALS}
            signals.handle(self._ask_to_stop)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch before."""
        if trainer.global_step > self.last_step:
            self._save(trainer)
        if self._agreed(trainer, self.stop, now=True):
            self._end()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is due, between two steps and not right before a validation."""
        if trainer.global_step == self.last_step or lightning_internals.ends_or_validates_after(trainer, batch_idx):
            return  # also between accumulated batches: a checkpoint has no gradients
        due = self.every_n_steps is not None and trainer.global_step - self.saved_step >= self.every_n_steps
        late = self.every_n_minutes is not None and time.monotonic() - self.saved_at >= 60 * self.every_n_minutes
        self.last_step = trainer.global_step
        stop = self._agreed(trainer, self.stop)
        if due or stop or self._agreed(trainer, late):
            self._save(trainer)
        if stop:
            self._end()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a resumed epoch like any other."""
        lightning_internals.clear_restarting(trainer.fit_loop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._save(trainer)
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the signal handlers."""
        self._restore_handlers()
        if self.notice:
            self.notice.join()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved_step, self.last_step = time.monotonic(), trainer.global_step, trainer.global_step

    def _agreed(self, trainer: Trainer, flag: bool, now: bool = False) -> bool:
        """Whether the flag is set on any rank; ranks communicate every AGREE_EVERY steps only."""
        if trainer.world_size == 1:
            return flag
        if not now and trainer.global_step % AGREE_EVERY:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(flag, all=False))

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        self._restore_handlers()
        # in a thread: this one may be writing a line, and Python's streams do not allow a write within a write
        text = "Stopping after this step (%s); a second signal stops at once"
        self.notice = threading.Thread(target=log.info, args=(text, signal.Signals(number).name), daemon=True)
        self.notice.start()

    def _end(self) -> None:
        raise Interrupted("stopped between two steps")

    def _restore_handlers(self) -> None:
        signals.restore(self.handlers)
        self.handlers = {}


def _parts(trainer: Trainer) -> dict[str, Any]:
    """Return the callbacks that have a state which differs among ranks, by the names of their classes."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return {type(one).__name__: one for one in callbacks if hasattr(one, "load_rank_state")}


def _classifier(module: LightningModule) -> TrainingModule:
    assert isinstance(module, TrainingModule)
    return module


def random_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's generators as plain values and tensors."""
    version, internal, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=True)
    name, keys, *rest = numpy
    states = {
        "python": [version, list(internal), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Set the generators to states from `random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _moved(state: dict[str, Any], new: Path) -> dict[str, Any]:
    """Return a ModelCheckpoint's state with the paths below its dirpath moved to the folder `new`."""
    old = Path(state["dirpath"])

    def moved(value: Any) -> Any:
        if not value:
            return value
        return str(new / Path(value).relative_to(old))

    paths = {key: moved(value) for key, value in state.items() if key.endswith("model_path")}
    best = {moved(path): score for path, score in state.get("best_k_models", {}).items()}
    return {"dirpath": str(new), "best_k_models": best} | paths
