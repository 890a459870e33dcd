"""The options of runs: those that can change results, those that differ, and how they are shown.

An option is a group's choice, `optimizer`, or a key of the config, `optimizer.lr`. Its value is a text, as typed on the
command line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lossfit import option_files
from lossfit.config import Config
from lossfit.errors import printable

IGNORED_OPTIONS = frozenset(  # they cannot change the metrics of a completed run, or tell repetitions apart
    {
        *(
            "seed",
            "data.fold",
            "choices",
            "logger",
            "experiment",
            "debug",
            "search",
            "study",
            "resume",
            "test",
            "metrics",
        ),
        "data.eval_batch_size",
        *(f"data.{key}" for key in ("store", "cache_dir", "cache_limit", "memory_limit", "workers")),
        *(f"trainer.{key}" for key in ("log_every_n_steps", "enable_model_summary", "detect_anomaly", "profiler")),
    }
)


def options(config: Config) -> dict[str, str]:
    """Return the options that can change results, the groups' choices first.

    The option `callbacks` names the callbacks that can; see option_files.passive_callbacks for the others.
    """
    choices = {printable(group): _text(option) for group, option in option_files.chosen(config).items()}
    callbacks = dict(_active_callbacks(config.get("callbacks")))
    choices["callbacks"] = ", ".join(sorted(callbacks)) or "none"
    kept = {group: option for group, option in choices.items() if group not in IGNORED_OPTIONS}
    return kept | dict(_flat({**config, "callbacks": callbacks}, ""))


def _active_callbacks(nodes: Any) -> Iterator[tuple[str, Any]]:
    """Yield the callbacks that can change what a run learns, without those that are turned off by null.

    One that is passive can end the run early, if its key `stop` says when.
    """
    for name, node in nodes.items() if isinstance(nodes, dict) else ():
        target = str(node.get("_target_")) if isinstance(node, dict) else ""
        is_passive = (name, target) in option_files.passive_callbacks() and not node.get("stop")
        if node is not None and not is_passive:
            yield name, node


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        name = printable(f"{prefix}{key}")
        if name in IGNORED_OPTIONS:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return printable(int(value) if whole else value)  # it may come from anyone


def columns(of_runs: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the options that differ among runs with the same choices, given the options of each run.

    optimizer.lr is a column if it differs between two runs with optimizer=sgd, not if sgd and adam have different
    defaults. A key of a node with a _target_ is compared only among runs with that _target_.
    """
    every = [options for options in of_runs if options]
    known = dict.fromkeys(key for options in every for key in options)
    differing = []
    for key in known:
        context = [name for name in (group_of(key, known), _target_of(key)) if name]
        values: dict[tuple[str | None, ...], set[str | None]] = defaultdict(set)
        for options in every:
            values[tuple(options.get(name) for name in context)].add(options.get(key))
        if any(len(texts) > 1 for texts in values.values()):
            differing.append(key)
    return differing


def group_of(key: str, known: Iterable[str]) -> str | None:
    """Return the innermost known group of a key: data/mix for data.mix.alpha, if data/mix is a group."""
    parts = key.split(".")[:-1]
    groups = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((group for group in groups if group in known), None)


def _target_of(key: str) -> str | None:
    node, _, name = key.rpartition(".")
    return f"{node}._target_" if node and name != "_target_" else None


def label(columns: Sequence[str], options: Mapping[str, str]) -> str:
    """Return the differing options in short, as `optimizer=sgd, lr=0.1`."""
    ends = Counter(option_name(column).rpartition(".")[2] for column in columns)
    parts = []
    for column in columns:
        end = option_name(column).rpartition(".")[2]
        if column in options:
            name = end if ends[end] == 1 else option_name(column)
            parts.append(f"{name}={format_value(column, options)}")
    return ", ".join(parts)


def option_name(column: str) -> str:
    """Return an option's name for a table; a _target_ has the name of its node."""
    return column.removesuffix("._target_")


def format_value(column: str, options: Mapping[str, str]) -> str:
    """Return an option's value for a table: a long number with four digits, a class without its module."""
    value = options.get(column, "-")
    if column.endswith("._target_"):
        return value.rpartition(".")[2]
    try:
        return f"{float(value):.4g}" if len(value) > 8 else value
    except ValueError:
        return value
