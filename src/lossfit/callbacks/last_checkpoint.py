"""checkpoints/last.ckpt: all that a run needs to go on from where it was, to the same bits."""

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
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop

from lossfit.data.batches import Batches
from lossfit.errors import Interrupted
from lossfit.processes import STOPS

log = logging.getLogger(__name__)

AGREE_EVERY = 10  # steps, among ranks


class LastCheckpoint(Checkpoint):
    """Saves last.ckpt when an epoch is over, and within it every n steps or minutes, and when the run is stopped.

    Stopped by Ctrl-C, SIGTERM or SIGUSR1 (which schedulers send before they take a machine away), a run finishes its
    step, saves and raises Interrupted; a second signal ends it at once. Every checkpoint of the run, of other callbacks
    too, gets the random states of all ranks and the epoch's sums so far.

    An epoch is saved when the next one starts, since only then are its schedules and metrics complete.
    """

    def __init__(self, dirpath: str, every_n_steps: int | None = None, every_n_minutes: float | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be >= 1 or null, got {every_n_steps}")
        if every_n_minutes is not None and every_n_minutes <= 0:
            raise ValueError(f"every_n_minutes must be > 0 or null, got {every_n_minutes}")
        self.path = Path(os.path.realpath(dirpath)) / "last.ckpt"  # as Lightning's callbacks have it
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.stop = False
        self.ranks: list[dict[str, Any]] = []  # what a checkpoint had of each
        self.handlers: dict[int, Any] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what each rank has of its own."""
        loader = trainer.train_dataloader
        own = {
            "random": random_states(),
            "batches": loader.state_dict() if isinstance(loader, Batches) else None,
            "train_sums": pl_module.train_sums.cpu(),
            "train_count": pl_module.train_count,
            "should_stop": trainer.should_stop,
        }
        ranks: list[Any] = [own]
        if trainer.world_size > 1:
            ranks = [None] * trainer.world_size
            torch.distributed.all_gather_object(ranks, own)
        checkpoint["ranks"] = ranks

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the ranks' states until training starts; let the folder have moved."""
        self.ranks = checkpoint["ranks"]
        self.max_epochs = checkpoint["hyper_parameters"]["config"]["trainer"].get("max_epochs")
        for state in checkpoint["callbacks"].values():
            if isinstance(state, dict) and "dirpath" in state:
                state.update(_moved(state, self.path.parent))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from what was loaded, and take over the signals."""
        self.saved_at, self.saved_step, self.last_step = time.monotonic(), trainer.global_step, trainer.global_step
        loop = trainer.fit_loop
        if self.ranks:
            own = self.ranks[trainer.global_rank]
            set_random_states(own["random"])
            if isinstance(trainer.train_dataloader, Batches):  # Lightning looks for its state before it has loaded it
                trainer.train_dataloader.load_state_dict(own["batches"])
            pl_module.train_sums, pl_module.train_count = own["train_sums"].to(pl_module.device), own["train_count"]
            more = trainer.max_epochs != self.max_epochs
            trainer.should_stop = own["should_stop"] and not more  # where it stopped early
        if loop.restarting and not loop.restarted_mid_epoch:
            # Lightning would end the epoch that is over once more
            if loop.restarted_on_epoch_end:
                loop.epoch_progress.increment_completed()
            total: Any = loop.epoch_progress.total
            total.ready = total.started  # the next epoch is yet to be begun
            _not_restarting(loop)
            loop.reset_restart_stage()
            loop.epoch_loop.reset_restart_stage()
        if threading.current_thread() is threading.main_thread():
            before = trainer._signal_connector._original_handlers  # Lightning's waits for ranks that wait elsewhere
            self.handlers = {number: before[number] for number in STOPS}
            for number in STOPS:
                signal.signal(number, self._ask)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch that is over."""
        if trainer.global_step > self.last_step:
            self._save(trainer)
        if self._agreed(trainer, self.stop, now=True):
            self._end()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time to, between two steps and not right before a validation."""
        if trainer.global_step == self.last_step or self._validates_next(trainer, batch_idx):
            return  # within accumulated gradients, which a checkpoint does not hold
        due = self.every_n_steps is not None and trainer.global_step - self.saved_step >= self.every_n_steps
        late = self.every_n_minutes is not None and time.monotonic() - self.saved_at >= 60 * self.every_n_minutes
        self.last_step = trainer.global_step
        stop = self._agreed(trainer, self.stop)
        if due or stop or self._agreed(trainer, late):
            self._save(trainer)
        if stop:
            self._end()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a resumed epoch like any other: Lightning would leave out the plateau schedule."""
        _not_restarting(trainer.fit_loop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last epoch."""
        self._save(trainer)
        self._give_signals_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the signals as they were."""
        self._give_signals_back()

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved_step, self.last_step = time.monotonic(), trainer.global_step, trainer.global_step

    def _validates_next(self, trainer: Trainer, batch_idx: int) -> bool:
        """Whether the epoch ends or is validated after this batch: a state in between is not Lightning's to restore."""
        every = trainer.val_check_batch
        count = batch_idx if trainer.check_val_every_n_epoch is not None else trainer.fit_loop.total_batch_idx
        last = batch_idx + 1 >= trainer.num_training_batches
        return last or (isinstance(every, int) and (count + 1) % every == 0)

    def _agreed(self, trainer: Trainer, flag: bool, now: bool = False) -> bool:
        """Whether any rank says so; the ranks ask each other every few steps only."""
        if trainer.world_size == 1:
            return flag
        if not now and trainer.global_step % AGREE_EVERY:
            return False
        return bool(trainer.strategy.reduce_boolean_decision(flag, all=False))

    def _ask(self, number: int, frame: FrameType | None) -> None:
        log.info("Stopping after this step (%s); a second signal stops at once", signal.Signals(number).name)
        self.stop = True
        self._give_signals_back()

    def _end(self) -> None:
        raise Interrupted("stopped between two steps")

    def _give_signals_back(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


def _not_restarting(loop: _FitLoop) -> None:
    """Have the loop and those in it go on as after any other epoch; its own setter knows better under max_steps."""
    vars(_Loop)["restarting"].fset(loop, False)


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
    """Put the generators into the states that `random_states` gave."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _moved(state: dict[str, Any], new: Path) -> dict[str, Any]:
    """Return a ModelCheckpoint's state with its files, which are below its dirpath, in the folder `new`."""
    old = Path(state["dirpath"])

    def moved(value: Any) -> Any:
        if not value:
            return value
        return str(new / Path(value).relative_to(old))

    paths = {key: moved(value) for key, value in state.items() if key.endswith("model_path")}
    best = {moved(path): score for path, score in state.get("best_k_models", {}).items()}
    return {"dirpath": str(new), "best_k_models": best} | paths
