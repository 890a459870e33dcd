"""Overrides, such as `optimizer.lr=1` or `+callbacks=ema`: which key one sets, and what tells two jobs apart."""

import re
from collections.abc import Collection, Iterable, Sequence

MAX_NAME = 60  # characters of a name made of overrides
NAMELESS = ("hydra", "resume", "trust_code")  # keys that say nothing about the run


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


def short_name(overrides: Iterable[str], groups: Collection[str]) -> str:
    """Return a file name that tells what was typed: `muon-focal-lr0.1` of optimizer=muon loss=focal optimizer.lr=0.1.

    groups: the names of the config's groups, whose options stand without their group. What could not stand in a file
    name on every system is left out. `default` if nothing was typed.
    """
    parts = []
    for override in overrides:
        name = key(override)
        if re.split(r"[./]", name)[0] not in NAMELESS:
            prefix = "no_" if override.startswith("~") else ""
            label = name if override.startswith("~") else "" if name in groups else name.rpartition(".")[2]
            text = value(override).rstrip("/").rpartition("/")[2].replace(",", "+")
            parts.append(re.sub(r"[^A-Za-z0-9._+-]", "", f"{prefix}{label}{text}")[: MAX_NAME // 3])
    return "-".join(filter(None, parts))[:MAX_NAME].strip("-.") or "default"
