"""Overrides, such as `optimizer.lr=1` or `+callbacks=ema`: which key one sets, and what tells two jobs apart."""

from collections.abc import Iterable, Sequence


def key(override: str) -> str:
    """Return the key or group that an override sets: `optimizer.lr` of `++optimizer.lr=1`."""
    return override.split("=", maxsplit=1)[0].lstrip("+~")


def value(override: str) -> str:
    """Return what an override sets its key to, as typed; empty for one that deletes a key."""
    return override.partition("=")[2]


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return the overrides by the key that they set, the last one where a key is given twice."""
    return {key(override): override for override in overrides}


def identity(overrides: Sequence[str]) -> frozenset[str]:
    """Return what tells a job from another: its overrides in any order."""
    return frozenset(by_key(overrides).values())
