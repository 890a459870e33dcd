"""The option files in conf/: where they are, what their comments say, and which options a config chose.

Imports no torch.
"""

import functools
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parents[2] / "conf"
PACKAGE = re.compile(r"^# @package (\S+)$", re.MULTILINE)
PASSIVE = re.compile(r"^(\w+): +# passive$\n +_target_: (\S+)", re.MULTILINE)
PRUNING = "lossfit.callbacks.Pruning"  # passive too: it has no option file, a search adds it to its trials


def options(group: str) -> list[str]:
    """Return the options of a group, sorted."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml")) if group in all_groups() else []


def options_with(key: str, names: Set[str]) -> str:
    """Return `; options that have it: GROUP=A, B` for the group at a key, if any of its options has these keys."""
    if not names:
        return ""
    group = key.replace(".", "/")
    found = [name for name in options(group) if names <= read(group, name).keys() - {"defaults", "_target_"}]
    return f"; options that have it: {group}={', '.join(found)}" if found else ""


def read(group: str, option: Any) -> dict[str, Any]:
    """Return the content of an option's file; empty for what is no option of a group, and for a whole experiment.

    group: "." for conf/ itself, whose option is `config`. Both may come from anyone: only files of conf/ are read.
    """
    known = isinstance(option, str) and option in options(group)
    return dict(_content(group, option)) if known and not _is_global(group, option) else {}


def read_experiment(option: Any) -> dict[str, Any]:
    """Return the content of an experiment's file, with its `defaults`; empty for what is no experiment."""
    return dict(_content("experiment", option)) if option in options("experiment") else {}


@functools.cache
def all_groups() -> frozenset[str]:
    """Return the groups of conf/, as `data/augment`; `.` is conf/ itself."""
    return frozenset([".", *(path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir())])


@functools.cache
def _text(group: str, option: str) -> str:
    return (CONF / group / f"{option}.yaml").read_text(encoding="utf-8")


@functools.cache
def _content(group: str, option: str) -> dict[str, Any]:
    content = yaml.safe_load(_text(group, option))
    return content if isinstance(content, dict) else {}


def _is_global(group: str, option: str) -> bool:
    package = PACKAGE.search(_text(group, option))
    return package is not None and package[1] == "_global_"


def same_value(value: Any, other: Any) -> bool:
    """Whether two values of an option are the same: 5e-4, which YAML reads as a text, is 0.0005."""
    try:
        return float(value) == float(other)
    except (TypeError, ValueError):
        return bool(value == other)


def why_no_key(name: str) -> str | None:
    """Say what to do about a key that is the name of a group whose options have no keys of their own, as experiment."""
    known = options(name)
    if not known or not all(_is_global(name, option) for option in known):
        return None
    return (
        f"{name} is a group and has no keys: choose an option with {name}=OPTION; if a file of conf/{name} was chosen, "
        f"its first line must be '# @package _global_'"
    )


def meaning(file: Path) -> str:
    """Return the first comment of a YAML file, after any package directive."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    return ""


def target(group: str, option: str) -> str:
    """Return the `_target_` of an option."""
    return re.findall(r"^_target_: (\S+)", _text(group, option), re.MULTILINE)[0]


def groups() -> str:
    """Describe every group and option by the first comment of its file, for --help."""
    lines = []
    for group in sorted(path for path in CONF.rglob("*") if path.is_dir()):
        lines.append(f"{group.relative_to(CONF).as_posix()}=")
        for file in sorted(group.glob("*.yaml")):
            lines.append(f"  {file.stem:18} {meaning(file)}")
    return "\n".join(lines).replace("$", "$$")


@functools.cache
def passive_callbacks() -> frozenset[tuple[str, str]]:
    """Return key and target of the callbacks that cannot change what a run learns: the key is marked `# passive`."""
    texts = [file.read_text(encoding="utf-8") for file in (CONF / "callbacks").glob("*.yaml")]
    return frozenset([("pruning", PRUNING), *(found for text in texts for found in PASSIVE.findall(text))])


def chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option, or the list of options, that a run's config chose in each group."""
    choices = config.get("choices")
    return choices if isinstance(choices, dict) else {}
