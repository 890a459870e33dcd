"""Learning-rate schedules: f(optimizer, total_steps, ...) -> Lightning's description of a scheduler.

total_steps is the number of steps that the trainer expects, lengths are fractions of the training, and all but
`plateau` change the learning rate at each optimizer step. Such a schedule has a shape: a function from the progress t
in [0, 1] to a factor on the optimizer's learning rate. Before it there is a linear warm-up over the first `warmup` of
the steps. After the end the last factor stays.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, pi
from typing import Annotated, Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from lossfit.ranges import Between0And1, Count, From0Below1, From0To1, NonNegative, Positive, Range, at_least, checked


@checked
def none(optimizer: Optimizer, total_steps: int, warmup: From0Below1 = 0.0) -> dict[str, Any]:
    """Keep the learning rate as it is, after the warm-up."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: 1.0)


@checked
def step(
    optimizer: Optimizer,
    total_steps: int,
    step_size: Between0And1 = 0.3,
    gamma: Positive = 0.1,
    warmup: From0Below1 = 0.0,
) -> dict[str, Any]:
    """Multiply the learning rate by gamma after each fraction `step_size` of the training."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: gamma ** int(t / step_size + 1e-9))


@checked
def exponential(
    optimizer: Optimizer, total_steps: int, final: Positive = 0.01, warmup: From0Below1 = 0.0
) -> dict[str, Any]:
    """Multiply the learning rate by the same factor at each step, so that it ends at `final` times its start."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: final**t)


@checked
def cosine(optimizer: Optimizer, total_steps: int, final: From0To1 = 0.0, warmup: From0Below1 = 0.0) -> dict[str, Any]:
    """Follow half a cosine from the learning rate down to `final` times it (1608.03983, without restarts)."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: final + (1 - final) * _half_cosine(t))


@checked
def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: Positive = 0.1,
    warmup: From0Below1 = 0.0,
) -> dict[str, Any]:
    """Multiply the learning rate by gamma at each milestone, a fraction of the training, in rising order."""
    if not milestones or not all(0 < low < high < 1 for low, high in pairwise([*milestones, 1 - 1e-9])):
        raise ValueError(f"milestones must be rising fractions of the training in (0, 1), got {list(milestones)}")
    return _stepwise(optimizer, total_steps, warmup, lambda t: gamma ** sum(t >= m - 1e-9 for m in milestones))


@checked
def linear(optimizer: Optimizer, total_steps: int, final: From0To1 = 0.0, warmup: From0Below1 = 0.0) -> dict[str, Any]:
    """Fall in a straight line from the learning rate to `final` times it."""
    return polynomial(optimizer, total_steps, power=1.0, final=final, warmup=warmup)


@checked
def polynomial(
    optimizer: Optimizer, total_steps: int, power: Positive = 2.0, final: From0To1 = 0.0, warmup: From0Below1 = 0.0
) -> dict[str, Any]:
    """Fall as (1 - t)^power from the learning rate to `final` times it; a power of 1 is a straight line."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: final + (1 - final) * (1 - t) ** power)


@checked
def cosine_restarts(
    optimizer: Optimizer, total_steps: int, cycles: Count = 3, final: From0To1 = 0.0, warmup: From0Below1 = 0.0
) -> dict[str, Any]:
    """Fall along half a cosine to `final` times the learning rate and jump back, `cycles` times (1608.03983)."""

    def shape(t: float) -> float:
        within = 1.0 if t >= 1 else cycles * t % 1
        return final + (1 - final) * _half_cosine(within)

    return _stepwise(optimizer, total_steps, warmup, shape)


@checked
def cyclic(optimizer: Optimizer, total_steps: int, cycles: Count = 4, low: From0To1 = 0.1) -> dict[str, Any]:
    """Rise and fall in straight lines from `low` times the learning rate to all of it, `cycles` times (1506.01186)."""
    return _stepwise(optimizer, total_steps, 0.0, lambda t: low + (1 - low) * (1 - abs(2 * (cycles * t % 1) - 1)))


@checked
def wsd(
    optimizer: Optimizer,
    total_steps: int,
    warmup: From0Below1 = 0.05,
    decay: Annotated[float, Range(0, 1, low_open=True)] = 0.2,
    final: From0To1 = 0.0,
) -> dict[str, Any]:
    """Warm up, stay, and fall in a straight line to `final` over the last `decay` of the training (2404.06395).

    Unlike a cosine, the stable part does not depend on the training's length, so that a longer training can start from
    its weights.
    """
    if decay > 1 - warmup:
        raise ValueError(f"decay must be at most 1 - warmup, got {decay} with warmup {warmup}")
    share = decay / (1 - warmup)  # of the training after the warm-up
    return _stepwise(optimizer, total_steps, warmup, lambda t: 1 - (1 - final) * max(0.0, (t - 1 + share) / share))


@checked
def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    pct_start: Between0And1 = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> dict[str, Any]:
    """Rise from lr / div_factor to lr over the fraction pct_start of the training, then fall far below (1708.07120).

    lr, the optimizer's, is the peak; the end is lr / (div_factor final_div_factor). Both ways are half a cosine. Unlike
    torch's OneCycleLR by default, it leaves momentum and betas as they are, so that it works with every optimizer.
    """
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def shape(t: float) -> float:
        if t < pct_start:
            return 1 + (first - 1) * _half_cosine(t / pct_start)
        return last + (1 - last) * _half_cosine((t - pct_start) / (1 - pct_start))

    return _stepwise(optimizer, total_steps, 0.0, shape)


@checked
def plateau(
    optimizer: Optimizer,
    total_steps: int,
    monitor: str = "val/loss",
    mode: Literal["min", "max"] = "min",
    factor: Between0And1 = 0.1,
    patience: Annotated[int, at_least(0)] = 2,
    min_lr: NonNegative = 0.0,
) -> dict[str, Any]:
    """Multiply the learning rate by factor, down to min_lr, when `monitor` has not improved for `patience` epochs.

    mode: "min" if lower values of monitor are better, "max" if higher ones are.
    """
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience, min_lr=min_lr)
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def _stepwise(optimizer: Optimizer, total_steps: int, warmup: float, shape: Callable[[float], float]) -> dict[str, Any]:
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return shape(min(1.0, (step - rising) / max(1, total_steps - rising)))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def _half_cosine(t: float) -> float:
    """From 1 at t = 0 to 0 at t = 1."""
    return (1 + cos(pi * t)) / 2
