"""Proportions and means with their 95% intervals, for reports."""

import math

from torch import Tensor

from lossfit.plain_values import float32_digits

Z = 1.959964  # standard deviations on each side of the mean that hold 95% of a normal distribution


def proportion(count: int, total: int) -> dict[str, float] | None:
    """Return count / total with its 95% Wilson interval; None if total is 0."""
    if not total:
        return None
    p, spread = count / total, Z**2 / total
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(p * (1 - p) * spread + spread**2 / 4) / (1 + spread)
    return {
        "value": float32_digits(p),
        "low": float32_digits(max(0, middle - half)),
        "high": float32_digits(min(1, middle + half)),
    }


def mean(values: Tensor) -> dict[str, float]:
    """Return the mean of values (N,) with its 95% interval by the normal distribution."""
    values = values.double()
    middle = values.mean().item()
    half = Z * values.std(correction=min(1, values.numel() - 1)).item() / math.sqrt(values.numel())
    return {
        "value": float32_digits(middle),
        "low": float32_digits(middle - half),
        "high": float32_digits(middle + half),
    }
