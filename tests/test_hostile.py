"""Whatever a checkpoint file holds, loading it gives a classifier or raises one line that names the file, and does
nothing else.

hostile.py makes the files; hostile_child.py loads them and detects what must not happen. To repeat one of them:

    python -m tests.hostile_child RUN/checkpoints/best.ckpt FOLDER --seed SEED --only NAME --count 1
"""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import forks
from tests.hostile import FAMILIES, cases

Row = dict[str, Any]


def outcomes(source: Path, folder: Path, *options: str, timeout: float = 300) -> list[Row]:
    """Load cases in another process; return the outcome of each."""
    folder.mkdir()
    done = forks.run(["-m", "tests.hostile_child", str(source), str(folder), *options], timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]


def report(rows: list[Row], seed: int) -> str:
    """Name the cases that went wrong, so that they can be repeated."""
    wrong = [row for row in rows if row["problems"]]
    lines = [
        f"{len(wrong)} of {len(rows)} with seed {seed}: {dict(Counter(row['name'].split('/')[0] for row in wrong))}"
    ]
    for row in wrong[:40]:
        door = f" given to {row['door']}" if row["door"] else ""
        lines.append(
            f"  {row['name']!r:.100}{door}: {row['outcome']}: {'; '.join(row['problems'])} [{row['message']!r:.150}]"
        )
    return "\n".join(lines)


def assert_no_problems(rows: list[Row], seed: int) -> None:
    assert not any(row["problems"] for row in rows if "careless" not in row), report(rows, seed)


def test_any_file_is_loaded_or_refused_in_one_line_without_side_effects(trained: Path, tmp_path: Path) -> None:
    best = trained / "checkpoints" / "best.ckpt"
    rows = outcomes(best, tmp_path / "work", "--count", "150", "--doors", "2", "--careless")
    careless = [row for row in rows if "careless" in row]
    assert not [row["name"] for row in careless if not row["problems"]], "what these loaders do is not seen"
    rows = [row for row in rows if "careless" not in row]
    assert len(rows) > 150
    assert {row["name"].split("/")[0] for row in rows} == {"controls", *FAMILIES}
    assert_no_problems(rows, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_more_files(trained: Path, tmp_path: Path, seed: int) -> None:
    best = trained / "checkpoints" / "best.ckpt"
    rows = outcomes(best, tmp_path / "work", "--seed", str(seed), "--count", "2000", "--doors", "30", timeout=3600)
    assert_no_problems(rows, seed)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["formats", "records", "bombs", "tensors", "models", "arguments", "data"])
def test_every_file_of_a_family(trained: Path, tmp_path: Path, family: str) -> None:
    best = trained / "checkpoints" / "best.ckpt"
    rows = outcomes(best, tmp_path / "work", "--only", f"{family}/", "--count", "5000", timeout=3600)
    assert_no_problems(rows, 0)


def test_a_seed_gives_the_same_files(trained: Path) -> None:
    best = trained / "checkpoints" / "best.ckpt"
    first, again, other = (
        [
            (case.name, case.content)
            for case in itertools.islice(cases(seed, best), 60)
            if isinstance(case.content, bytes)
        ]
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other
