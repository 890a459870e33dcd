"""Overrides, such as `optimizer.lr=1` or `+callbacks=ema`: their keys and values, and which jobs are the same."""

import re
from collections.abc import Collection, Iterable, Sequence

from lossfit.errors import UserError

ADDED = ("callbacks", "logger")  # groups to whose options `+` adds some
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
    """Return the overrides by the key that they set, the last one where a key is given twice.

    `+callbacks=ema` adds to the options that `callbacks=` chooses, and does not replace them: its key is `+callbacks`.
    """
    return {f"+{key(one)}" if _adds(one) else key(one): one for one in overrides}


def check_added(overrides: Sequence[str]) -> None:
    """Raise UserError if several overrides add options to one group: only the last one would count."""
    for group in ADDED:
        adding = [one for one in overrides if _adds(one) and key(one) == group]
        if len(adding) > 1:
            values = [value(one) for one in adding]
            swept = any("," in text and not text.startswith("[") for text in values)
            options = "[A,B],[A,C]" if swept else f"[{','.join(filter(None, (text.strip('[]') for text in values)))}]"
            raise UserError(f"{' '.join(adding)}: +{group} can be given once: write '+{group}={options}'")


def _adds(override: str) -> bool:
    return override.startswith(tuple(f"+{group}=" for group in ADDED))


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
