"""scripts/bench/diagnosis.py: its table of planted faults, its scores, and runs on the sample."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lossfit import overrides as override_keys
from lossfit.config import check
from lossfit.option_files import CONF
from tests.conftest import ROOT, compose

SAMPLE = ("data=sample", "trainer.max_epochs=2", "data.batch_size=32")
NET = ("model=custom", "model.function=scripts.bench.planted.Net", "+model.options.width=32")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark, which import one another as scripts of one folder do."""
    folder = str(ROOT / "scripts" / "bench")
    sys.path.insert(0, folder)
    names = ("table", "scores", "runs", "remedies")
    yield {name: __import__(f"diagnosis_{name}") for name in names}
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    return compose()


@pytest.fixture(scope="module")
def rules(default: dict[str, Any]) -> list[str]:
    return list(default["callbacks"]["diagnosis"]["rules"])


@pytest.fixture(scope="module")
def table(bench: dict[str, ModuleType]) -> list[Any]:
    found: list[Any] = bench["table"].read_table()
    return found


@pytest.mark.parametrize("half", ["tune", "score"])
def test_each_half_has_enough_runs_and_every_finding_is_planted(half: str, table: list[Any], rules: list[str]) -> None:
    of_half = [run for run in table if run.half == half]
    assert sum(not run.healthy for run in of_half) >= 20
    assert sum(run.healthy for run in of_half) >= 20
    assert {name for run in of_half for group in run.expected for name in group} == set(rules)
    assert {name for run in of_half for name in run.tolerated} <= set(rules)
    assert all(set(run.tolerated) <= {"miscalibration", "class_collapse"} for run in of_half if run.healthy)


def test_the_halves_differ_in_their_seeds(table: list[Any]) -> None:
    tune, score = (
        {override for run in table if run.half == half for override in run.overrides if override.startswith("seed=")}
        for half in ("tune", "score")
    )
    assert not tune & score
    assert all(any(o.startswith("seed=") for o in run.overrides) for run in table if run.half == "score")


@pytest.mark.parametrize("group", ["loss", "optimizer", "scheduler", "model", "data/augment", "data/mix"])
def test_a_healthy_run_has_each_option(
    group: str, table: list[Any], default: dict[str, Any], bench: dict[str, ModuleType]
) -> None:
    options = {file.stem for file in (CONF / group).glob("*.yaml")} - {"custom"}
    used = {
        override_keys.by_key((*bench["runs"].SETTING, *run.overrides)).get(group, f"={default['choices'][group]}")
        for run in table
        if run.healthy
    }
    assert options <= {text.partition("=")[2] for text in used}


def is_option(override: str) -> bool:
    return (CONF / override_keys.key(override)).is_dir()


def parts(overrides: tuple[str, ...]) -> set[str]:
    """The keys of values that a line sets."""
    return {override_keys.key(override) for override in overrides if not is_option(override)}


def cover(table: list[Any]) -> list[Any]:
    """A few runs that have all keys of the table among them."""
    missing = {part for run in table for part in parts(run.overrides)}
    chosen = []
    while missing:
        best = max(table, key=lambda run: len(parts(run.overrides) & missing))
        chosen.append(best)
        missing -= parts(best.overrides)
    return chosen


def check_all(lines: list[Any], setting: list[str], folder: Path) -> None:
    """Check the configs. folder: stands for the images that the benchmark writes before it trains."""
    (folder / "tags.csv").write_text("path,tags\n", encoding="utf-8")
    for run in lines:
        words = [re.sub("^data.dir=.*", f"data.dir={folder}", word) for word in run.overrides]
        try:
            check(compose(*setting, *words))
        except Exception as error:
            raise AssertionError(f"{run.half}.{run.name}: {error}") from error


def test_every_option_and_key_of_the_table_exists(
    bench: dict[str, ModuleType], table: list[Any], tmp_path: Path
) -> None:
    options = {override for run in table for override in run.overrides if is_option(override)}
    files = {o: CONF / override_keys.key(o) / f"{override_keys.value(o)}.yaml" for o in options}
    assert [option for option, file in files.items() if not file.is_file()] == []
    check_all(cover(table), bench["runs"].SETTING, tmp_path)


@pytest.mark.slow
def test_every_line_of_the_table_composes(bench: dict[str, ModuleType], table: list[Any], tmp_path: Path) -> None:
    check_all(table, bench["runs"].SETTING, tmp_path)


def planted(bench: dict[str, ModuleType], name: str, expected: str = "", tolerated: str = "") -> Any:
    groups = tuple(tuple(group.split("|")) for group in expected.split())
    return bench["table"].Planted("tune", name, (), groups, tuple(tolerated.split()))


@pytest.fixture
def outcomes(bench: dict[str, ModuleType]) -> list[Any]:
    outcome = bench["scores"].Outcome
    return [
        outcome(planted(bench, "both", "a|b"), {"b": "warning", "a": "critical"}),
        outcome(planted(bench, "second", "a|b", "c"), {"b": "warning", "c": "note"}),
        outcome(planted(bench, "one_of_two", "a c"), {"c": "note", "d": "warning"}),
        outcome(planted(bench, "nothing", "b|a"), {}),
        outcome(planted(bench, "well"), {}),
        outcome(planted(bench, "well_but_a", tolerated="d"), {"a": "critical", "d": "warning"}),
        outcome(planted(bench, "tolerated", tolerated="d"), {"d": "note"}),
    ]


def test_scores_by_hand(bench: dict[str, ModuleType], outcomes: list[Any]) -> None:
    found = bench["scores"].score(outcomes, ["a", "b", "c", "d"])
    counts = {name: (one.right, one.missed, one.false) for name, one in found.findings.items()}
    assert counts == {"a": (1, 1, 1), "b": (1, 1, 0), "c": (1, 0, 0), "d": (0, 0, 1)}
    assert (found.total.precision, found.total.recall) == (3 / 5, 3 / 5)
    assert found.findings["d"].recall is None
    assert (found.faulty, found.healthy) == (4, 3)
    assert (found.critical, found.any) == (["well_but_a"], ["well_but_a"])
    text = bench["scores"].score_table(found)
    assert "| a | 1 | 1 | 1 | 0.50 | 0.50 |" in text
    assert "| **all** | 3 | 2 | 2 | 0.60 | 0.60 |" in text
    assert "Of 3 healthy runs, 1 has a critical finding and 1 a false alarm." in text


def test_confusion_and_mistakes_by_hand(bench: dict[str, ModuleType], outcomes: list[Any]) -> None:
    rows = bench["scores"].confusion(outcomes, ["a", "b", "c", "d"])
    assert rows["a"] == (3, {"a": 1, "b": 2, "c": 2, "d": 1})
    assert rows["b"] == (1, {"a": 0, "b": 0, "c": 0, "d": 0})
    assert rows["none"] == (3, {"a": 1, "b": 0, "c": 0, "d": 2})
    assert bench["scores"].mistakes(outcomes).splitlines() == [
        "- `one_of_two`: missed a, false d (warning); found c d",
        "- `nothing`: missed b|a; found nothing",
        "- `well_but_a`: false a (critical); found a d",
    ]


def test_a_remedy_replaces_what_was_typed_and_adds_callbacks(bench: dict[str, ModuleType]) -> None:
    words = ("model=mlp", "optimizer.lr=30", "+callbacks=ema")
    remedy = ["optimizer.lr=0.1", "+callbacks=early_stopping"]
    both = bench["remedies"].typed(words, remedy)
    assert both == ("model=mlp", "+callbacks=[ema,early_stopping]", "optimizer.lr=0.1")
    assert {"ema", "early_stopping", "checkpoint"} <= compose(*both)["callbacks"].keys()
    assert bench["remedies"].typed(words, ["optimizer=sgd"]) == (*words[:2], "+callbacks=[ema]", "optimizer=sgd")


@pytest.mark.parametrize(
    ("gone", "before", "after", "larger", "better"),
    [
        (True, 0.8, 0.7, True, True),
        (False, 0.8, 0.9, True, True),
        (False, 0.8, 0.7, True, False),
        (False, 30.0, 20.0, False, True),
        (False, float("nan"), 0.1, True, True),
        (False, 0.1, float("nan"), True, False),
    ],
)
def test_when_a_remedy_is_better(
    gone: bool, before: float, after: float, larger: bool, better: bool, bench: dict[str, ModuleType]
) -> None:
    trial = bench["remedies"].Trial("run", "a", ["x=1"], gone, before, after, larger)
    assert trial.better == better
    refused = bench["remedies"].Trial("run", "a", ["x=1"], gone, before, after, larger, refused="no such key")
    assert not refused.better
    text = bench["remedies"].table([trial, refused], ["b (a)"])
    counts = [int(gone), int(trial.improved)]
    assert f"Of 2 remedies {int(better)} (" in text
    assert f"better: {counts[0]} the one, {counts[1]} the other." in text
    assert "no such key" in text


def test_a_planted_and_a_healthy_run(
    bench: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = bench["runs"]
    jobs = [
        module.Job(tmp_path / "faulty", (*SAMPLE, *NET, "+model.options.head_bias=30")),
        module.Job(tmp_path / "healthy", (*SAMPLE, *NET)),
    ]
    module.train_all(jobs, 1)
    assert capsys.readouterr().err.count("completed, val/acc 0.") == 2
    rules = module.current_rules()
    faulty, healthy = (module.severities(module.diagnose(job.folder, rules)) for job in jobs)
    assert "wrong_start" in faulty
    assert "wrong_start" not in healthy
    assert "critical" not in healthy.values()
    module.train_all(jobs, 1)
    assert capsys.readouterr().err == "", "complete runs are not trained again"
    module.train_all([module.Job(tmp_path / "healthy", (*SAMPLE, *NET, "seed=2"))], 1)
    assert "1/1" in capsys.readouterr().err, "another command in the same folder is"


def test_a_run_that_diverges_to_infinite_gradients_is_complete(bench: dict[str, ModuleType], tmp_path: Path) -> None:
    module = bench["runs"]
    wild = ("optimizer=nesterov", "optimizer.lr=10", "scheduler=none")
    job = module.Job(tmp_path / "wild", ("data=sample", "model=mlp", "data.batch_size=32", *wild))
    assert "diverged, val/acc nan" in module.train(job)
    assert job.done
    assert module.severities(module.diagnose(job.folder, module.current_rules()))["non_finite"] == "critical"
