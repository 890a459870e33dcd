"""Learning-rate schedules: f(optimizer, total_steps, ...) -> Lightning's description of a scheduler.

Lengths are fractions of the training, total_steps is what the trainer says it will take, and all but
`plateau` move with each optimizer step. A step-wise schedule is a shape, a function from the progress t in
[0, 1] to a factor on the optimizer's own learning rate, after a linear warm-up over the first `warmup` of
the steps. Past the end the last factor holds.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import cos, pi
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau


def none(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> dict[str, Any]:
    """Keep the learning rate as it is, after the warm-up."""
    return _stepwise(optimizer, total_steps, warmup, lambda t: 1.0)


def step(
    optimizer: Optimizer, total_steps: int, step_size: float = 0.3, gamma: float = 0.1, warmup: float = 0.0
) -> dict[str, Any]:
    """Multiply the learning rate by gamma after each step_size of the training, a fraction in (0, 1)."""
    if not 0 < step_size < 1:
        raise ValueError(f"step_size must be a fraction of the training in (0, 1), got {step_size}")
    _check_positive("gamma", gamma)
    return _stepwise(optimizer, total_steps, warmup, lambda t: gamma ** int(t / step_size + 1e-9))


def exponential(optimizer: Optimizer, total_steps: int, final: float = 0.01, warmup: float = 0.0) -> dict[str, Any]:
    """Shrink the learning rate by the same factor each step, to `final` times its start, final > 0."""
    _check_positive("final", final)
    return _stepwise(optimizer, total_steps, warmup, lambda t: final**t)


def cosine(optimizer: Optimizer, total_steps: int, final: float = 0.0, warmup: float = 0.0) -> dict[str, Any]:
    """Follow half a cosine from the learning rate down to `final` times it (1608.03983, without restarts)."""
    _check_share("final", final)
    return _stepwise(optimizer, total_steps, warmup, lambda t: final + (1 - final) * _half_cosine(t))


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[float] = (0.5, 0.75),
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> dict[str, Any]:
    """Multiply the learning rate by gamma at each milestone, rising fractions of the training in (0, 1)."""
    if not milestones or not all(0 < low < high < 1 for low, high in pairwise([*milestones, 1 - 1e-9])):
        raise ValueError(f"milestones must be rising fractions of the training in (0, 1), got {list(milestones)}")
    _check_positive("gamma", gamma)
    return _stepwise(optimizer, total_steps, warmup, lambda t: gamma ** sum(t >= m - 1e-9 for m in milestones))


def linear(optimizer: Optimizer, total_steps: int, final: float = 0.0, warmup: float = 0.0) -> dict[str, Any]:
    """Fall in a straight line from the learning rate to `final` times it, in [0, 1]."""
    return polynomial(optimizer, total_steps, power=1.0, final=final, warmup=warmup)


def polynomial(
    optimizer: Optimizer, total_steps: int, power: float = 2.0, final: float = 0.0, warmup: float = 0.0
) -> dict[str, Any]:
    """Fall as (1 - t)^power from the learning rate to `final` times it; power > 0, and 1 is a straight line."""
    _check_positive("power", power)
    _check_share("final", final)
    return _stepwise(optimizer, total_steps, warmup, lambda t: final + (1 - final) * (1 - t) ** power)


def cosine_restarts(
    optimizer: Optimizer, total_steps: int, cycles: int = 3, final: float = 0.0, warmup: float = 0.0
) -> dict[str, Any]:
    """Fall along half a cosine to `final` times the learning rate and jump back, `cycles` times (1608.03983)."""
    _check_cycles(cycles)
    _check_share("final", final)

    def shape(t: float) -> float:
        within = 1.0 if t >= 1 else cycles * t % 1
        return final + (1 - final) * _half_cosine(within)

    return _stepwise(optimizer, total_steps, warmup, shape)


def cyclic(optimizer: Optimizer, total_steps: int, cycles: int = 4, low: float = 0.1) -> dict[str, Any]:
    """Rise and fall in straight lines from `low` times the learning rate to all of it, `cycles` times (1506.01186)."""
    _check_cycles(cycles)
    _check_share("low", low)
    return _stepwise(optimizer, total_steps, 0.0, lambda t: low + (1 - low) * (1 - abs(2 * (cycles * t % 1) - 1)))


def wsd(
    optimizer: Optimizer, total_steps: int, warmup: float = 0.05, decay: float = 0.2, final: float = 0.0
) -> dict[str, Any]:
    """Warm up, stay, and fall in a straight line to `final` over the last `decay` of the training (2404.06395).

    Unlike a cosine's, the stable part does not depend on where the end is, so that it can be trained on from.
    """
    if not 0 < decay <= 1 - warmup:
        raise ValueError(f"decay must be a fraction in (0, 1 - warmup], got {decay} with warmup {warmup}")
    _check_share("final", final)
    share = decay / (1 - warmup)  # of what comes after the warm-up
    return _stepwise(optimizer, total_steps, warmup, lambda t: 1 - (1 - final) * max(0.0, (t - 1 + share) / share))


def one_cycle(
    optimizer: Optimizer,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> dict[str, Any]:
    """Rise from lr / div_factor to lr over pct_start of the training, then fall far below the start (1708.07120).

    The learning rate that the optimizer is given is the peak, and both ways are half a cosine. Momentum and
    betas stay as they are, so that it goes with every optimizer (torch's OneCycleLR sets them unless told not to).
    """
    if not 0 < pct_start < 1:
        raise ValueError(f"pct_start must be a fraction of the training in (0, 1), got {pct_start}")
    _check_positive("div_factor", div_factor)
    _check_positive("final_div_factor", final_div_factor)
    first, last = 1 / div_factor, 1 / (div_factor * final_div_factor)

    def shape(t: float) -> float:
        if t < pct_start:
            return 1 + (first - 1) * _half_cosine(t / pct_start)
        return last + (1 - last) * _half_cosine((t - pct_start) / (1 - pct_start))

    return _stepwise(optimizer, total_steps, 0.0, shape)


def plateau(
    optimizer: Optimizer,
    total_steps: int,
    monitor: str = "val/loss",
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 2,
    min_lr: float = 0.0,
) -> dict[str, Any]:
    """Multiply the learning rate by factor when `monitor` has not improved for `patience` epochs.

    mode: "min" where less is better, "max" where more is.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
    if not 0 < factor < 1:
        raise ValueError(f"factor must be in (0, 1), got {factor}")
    if patience < 0:
        raise ValueError(f"patience must be >= 0 epochs, got {patience}")
    if min_lr < 0:
        raise ValueError(f"min_lr must be >= 0, got {min_lr}")
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience, min_lr=min_lr)  # type: ignore[arg-type]
    return {"scheduler": scheduler, "interval": "epoch", "monitor": monitor}


def _stepwise(optimizer: Optimizer, total_steps: int, warmup: float, shape: Callable[[float], float]) -> dict[str, Any]:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a fraction of the training in [0, 1), got {warmup}")
    rising = round(warmup * total_steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return shape(min(1.0, (step - rising) / max(1, total_steps - rising)))

    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def _half_cosine(t: float) -> float:
    """From 1 at t = 0 to 0 at t = 1."""
    return (1 + cos(pi * t)) / 2


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _check_cycles(cycles: int) -> None:
    if cycles < 1:
        raise ValueError(f"cycles must be >= 1, got {cycles}")


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be > 0, got {value}")
