"""The runs of planted.yaml."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("planted.yaml")
HALVES = ("tune", "score")


@dataclass(frozen=True)
class Planted:
    """A run of the benchmark.

    half: tune or score, or prepared for one whose weights others start from. expected: sets of findings, one of each of
    which must be found; none for a healthy run. tolerated: findings that count neither as right nor as wrong.
    """

    half: str
    name: str
    overrides: tuple[str, ...]
    expected: tuple[tuple[str, ...], ...] = ()
    tolerated: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no fault is planted."""
        return not self.expected

    @property
    def allowed(self) -> set[str]:
        """The findings that are no false alarm."""
        return {*self.tolerated, *(name for alternatives in self.expected for name in alternatives)}


def read_table(file: Path = TABLE) -> list[Planted]:
    """Return all runs of the table; raise ValueError for a name that occurs twice in a half."""
    table = yaml.load(file.read_text(encoding="utf-8"), Loader=_NoDoubles)
    words = table["words"]
    parts = [("prepared", table["prepared"])]
    parts += [(half, table[half][kind]) for half in HALVES for kind in ("faulty", "healthy")]
    found = [_planted(half, name, line, words) for half, lines in parts for name, line in lines.items()]
    if doubles := {one.name for one in found if sum((one.half, one.name) == (o.half, o.name) for o in found) > 1}:
        raise ValueError(f"{file}: {', '.join(sorted(doubles))} occurs twice in a half")
    return found


def _planted(half: str, name: str, line: dict[str, str], words: dict[str, str]) -> Planted:
    if unknown := line.keys() - {"run", "expect", "tolerate", "why"}:
        raise ValueError(f"{half}.{name}: unknown keys {', '.join(sorted(unknown))}")
    overrides = [part for word in shlex.split(line["run"]) for part in shlex.split(words.get(word, word))]
    expected = [group.split("|") for group in line.get("expect", "").split()]
    expected = [[one for name in group for one in words.get(name, name).split("|")] for group in expected]
    tolerated = [one for word in line.get("tolerate", "").split() for one in words.get(word, word).split()]
    return Planted(half, name, tuple(overrides), tuple(tuple(dict.fromkeys(g)) for g in expected), tuple(tolerated))


class _NoDoubles(yaml.SafeLoader):
    """A loader that refuses a key that a mapping has twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: Sequence[Any] = [self.construct_object(key, deep=deep) for key, _ in node.value]
        if doubles := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"{TABLE.name}: {', '.join(map(str, doubles))} occurs twice")
        return super().construct_mapping(node, deep)
