"""Overrides, such as `optimizer.lr=1` or `+callbacks=ema`: their keys and values, and which jobs are the same."""

import re
from collections.abc import Collection, Iterable, Sequence

MAX_NAME = 60  # characters of a name made of overrides
COMMAND_KEYS = ("resume", "trust_code")  # keys of conf/config.yaml that belong to the command, not to the run

DATA_PATHS = ("init_from", "data.dir", "data.table")  # keys of a run's config: paths that it reads
PRETRAINED = re.compile("weight|pretrained")  # arguments of a model that choose weights to download or read
PATHS = (
    *DATA_PATHS,
    "data.cache_dir",
    "data.url",
    "model.weights",
    "resume",
    "hydra.run.dir",
    "hydra.sweep.dir",
)  # keys of a command line whose values are paths


def key(override: str) -> str:
    """Return the key or group that an override sets: `optimizer.lr` of `++optimizer.lr=1`."""
    return override.split("=", maxsplit=1)[0].lstrip("+~")


def value(override: str) -> str:
    """Return the value that an override sets, as typed; empty for one that deletes a key."""
    return override.partition("=")[2]


def is_of_the_run(key: str) -> bool:
    """Whether a key belongs to a run's config, not to the command or to Hydra."""
    return re.split(r"[./]", key)[0] not in (*COMMAND_KEYS, "hydra")


def with_value(override: str, value: str) -> str:
    """Return an override of the same key, with the same sign, and another value."""
    return f"{override.partition('=')[0]}={value}"


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return the overrides by the key that they set, the last one where a key is given twice."""
    return {key(override): override for override in overrides}


def identity(overrides: Sequence[str]) -> frozenset[str]:
    """Return what identifies a job: its overrides in any order."""
    return frozenset(by_key(overrides).values())


def short_name(overrides: Iterable[str], groups: Collection[str]) -> str:
    """Return a file name that tells what was typed: `muon-focal-lr0.1` of optimizer=muon loss=focal optimizer.lr=0.1.

    groups: the names of the config's groups, whose options stand without their group. What could not stand in a file
    name on every system is left out. `default` if nothing was typed.
    """
    parts = []
    for override in overrides:
        name = key(override)
        if is_of_the_run(name):
            prefix = "no_" if override.startswith("~") else ""
            label = name if override.startswith("~") else "" if name in groups else name.rpartition(".")[2]
            text = value(override).rstrip("/").rpartition("/")[2].replace(",", "+")
            parts.append(re.sub(r"[^A-Za-z0-9._+-]", "", f"{prefix}{label}{text}")[: MAX_NAME // 3])
    return "-".join(filter(None, parts))[:MAX_NAME].strip("-.") or "default"
