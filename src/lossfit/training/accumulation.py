"""Gradients that are accumulated over several batches (trainer.accumulate_grad_batches)."""

import math

from lightning.pytorch import Trainer


def share_of_window(trainer: Trainer, batch_idx: int) -> float:
    """Return the factor of a batch's loss that makes accumulated gradients a mean over the batches of their step.

    Lightning divides by accumulate_grad_batches, also in an epoch's last step, which may have fewer batches.
    """
    window = trainer.accumulate_grad_batches
    if window == 1:
        return 1.0
    count = trainer.num_training_batches
    rest = int(count % window) if math.isfinite(count) else 0
    return window / rest if rest and batch_idx >= count - rest else 1.0
