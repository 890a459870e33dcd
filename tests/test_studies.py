"""Studies: a search and then seeds in one sweep, resumed; the arithmetic of the table; pages made from JSON."""

import json
import math
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from hydra_plugins.lossfit.study import merged, multiplied
from lossfit import option_files, runs, studies, sweeps
from lossfit.errors import UserError
from lossfit.option_files import CONF
from lossfit.runs import names
from lossfit.studies.statistic import cell, chance, comparisons
from lossfit.sweeps.unchanged import check_unchanged
from lossfit.tasks import metric_names
from lossfit.training import precision
from tests import forks
from tests.conftest import NO_PICTURES, QUICK, Command, compose
from tests.test_sweeps import swept

TWO_BY_TWO = [
    *(
        "-m",
        *(one for one in QUICK if one not in ("model=mlp", "trainer.precision=32-true", NO_PICTURES)),
        "model=linear",
        "callbacks=[checkpoint]",
        "logger=[csv]",
        "hydra/sweeper=study",
    ),
    "++hydra.sweeper.rows={ce:'loss=cross_entropy',mae:['loss=mae','optimizer.lr=0.01']}",
    "++hydra.sweeper.settings={right:'',wrong:'data.label_noise=0.4'}",
    "++hydra.sweeper.metrics={test/acc:accuracy,last/test/acc:accuracy at the end,fit_s:seconds}",
    "hydra.sweeper.search.factors=[1,1e3]",
    "hydra.sweeper.search.setting=wrong",
    "hydra.sweeper.seeds=[1,2]",
    "hydra.launcher.n_jobs=2",
]


def numbers(folder: Path) -> Any:
    """What study.json says, without times."""
    content = json.loads((folder / names.STUDY_RESULT).read_text())
    for one in (*content["results"], *content["search"]["runs"]):
        del one["seconds"]
    for one in content["results"]:
        del one["metrics"]["fit_s"]
    return content


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was left alone."""
    folder = tmp_path_factory.mktemp("study") / "sweep"
    done = swept(*TWO_BY_TWO, f"hydra.sweep.dir={folder}")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


def test_each_row_is_trained_with_its_best_value_and_every_seed(study: Path) -> None:
    content = json.loads((study / names.STUDY_RESULT).read_text())
    search = content["search"]
    assert {one["value"] for one in search["runs"] if one["row"] == "ce"} == {"optimizer.lr=0.004", "optimizer.lr=4"}
    assert {one["value"] for one in search["runs"] if one["row"] == "mae"} == {"optimizer.lr=0.01", "optimizer.lr=10"}
    assert {one["setting"] for one in search["runs"]} == {"wrong"}
    best = {
        row: max((one for one in search["runs"] if one["row"] == row), key=lambda one: one["metric"])["value"]
        for row in ("ce", "mae")
    }
    wanted = {(row, setting, best[row], seed) for row in best for setting in ("right", "wrong") for seed in (1, 2)}
    found = {(one["row"], one["setting"], one["value"], one["seed"]) for one in content["results"]}
    assert found == wanted
    folders = [path.parent for path in study.glob("*/result.json")]
    assert len(folders) == len(search["runs"]) + len(wanted) == 12
    for folder in folders:
        searched = "seed=0" in runs.read_overrides(folder)
        assert ("test/acc" in runs.read_result(folder)["metrics"]) == (not searched), "only seeds read the test split"
    said = (study / "said").read_text()
    assert "4 jobs in" in said
    assert "8 jobs in" in said
    assert studies.tables(content) in said
    assert (study / names.STUDY_PICTURE).stat().st_size > 10_000


def test_metrics_are_those_of_the_run_and_of_its_last_checkpoint(study: Path) -> None:
    for one in json.loads((study / names.STUDY_RESULT).read_text())["results"]:
        (folder,) = (
            path.parent
            for path in study.glob("*/result.json")
            if {one["value"], f"seed={one['seed']}"} <= {*runs.read_overrides(path.parent)}
            and ("data.label_noise=0.4" in runs.read_overrides(path.parent)) == (one["setting"] == "wrong")
        )
        result = runs.read_result(folder)
        assert one["metrics"]["test/acc"] == result["metrics"]["test/acc"]
        assert one["metrics"]["fit_s"] == result["timings"]["fit_s"]
        assert one["metrics"]["last/test/acc"] == pytest.approx(result["metrics"]["test/acc"]), "one epoch, so the same"


def test_a_study_that_is_killed_is_resumed_to_the_same_results(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    process = forks.Forked(["train.py", *TWO_BY_TWO, f"hydra.sweep.dir={folder}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if re.match(r"#6 ", line):  # of the second stage
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=60)
    assert not (folder / names.STUDY_RESULT).exists()
    done = swept(f"resume={folder}")
    assert done.returncode == 0, done.stderr
    assert "4 jobs in" in done.stdout
    assert ", 4 of them done already" in done.stdout
    assert len(list(folder.glob("[0-9]*"))) == 12, "no job twice"
    assert numbers(folder) == numbers(study) | {"study": "sweep"}
    again = swept(f"resume={folder}")
    assert "#" not in again.stdout.split("**")[0], "nothing is trained again"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["seed=3"], "seed=3: the study sets seed itself"),
        (["loss=mse"], "loss=mse: the study sets loss itself"),
        (["data.batch_size=16,32"], "data.batch_size=16,32: a study has one value for each key"),
        (["hydra.sweeper.baseline=best"], "hydra.sweeper.baseline must be none or one of ce, mae, got best"),
        (["hydra.sweeper.search.setting=none"], "as setting null or one of right, wrong"),
        (["hydra.sweeper.search.key=optimizer.size"], "must be a number in each row, got optimizer.size=None"),
        (["hydra.sweeper.metric=test/acc"], "nothing is chosen on the test split"),
        (["hydra.sweeper.max_jobs=11"], "12 jobs are more than hydra.sweeper.max_jobs=11"),
        (["++hydra.sweeper.curves={metric:val/acc,x:[hour]}"], "x from epoch, step, seconds"),
        (["++hydra.sweeper.curves={metric:val/acc,x:3}"], "x from epoch, step, seconds"),
        (["++hydra.sweeper.curves={metric:val/ac,x:[epoch]}"], "curves.metric=val/ac: no run has this metric (did you"),
        (["hydra.sweeper.metric=val/my_acc"], "metric=val/my_acc: no run has this metric (did you mean 'val/acc'?)"),
        (
            ["hydra.sweeper.seeds=[1,one]"],
            "hydra.sweeper.seeds[1] must be a whole number from 0 to 2**32 - 1, got 'one'",
        ),
        (["hydra.sweeper.seeds=[1,1]"], "hydra.sweeper.seeds must be different, got [1, 1]"),
        (["hydra.sweeper.seeds=3"], "hydra.sweeper.seeds must be a list, got 3"),
        (["hydra.sweeper.search.factors=[1,-1]"], "search.factors[1] must be a finite number > 0, got -1"),
        (["hydra.sweeper.search.key=null"], "hydra.sweeper.search.key must be a text, got None"),
        (
            ["++hydra.sweeper.rows.ce=3"],
            "hydra.sweeper.rows.ce must be overrides, as a text or a list of texts or null",
        ),
    ],
)
def test_a_mistake_is_reported_before_anything_is_made(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, said = command("train.py", *TWO_BY_TWO, *arguments, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 2, said
    assert expected in said
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_row_adds_callbacks_to_those_of_the_command() -> None:
    command = ["callbacks=[checkpoint]", "+callbacks=ema", "seed=1"]
    assert merged(command, [], ["seed=2"]) == (*command[:2], "seed=2")
    with pytest.raises(UserError, match=r"write '\+callbacks=\[ema,unfreeze\]'"):
        merged([], ["+callbacks=ema"], ["+callbacks=unfreeze"])


def test_studies_are_started_one_at_a_time(command: Command, tmp_path: Path) -> None:
    status, said = command("train.py", "-m", "study=costs,long_tail", f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 2
    assert "study: has several values, and studies are started one at a time" in said


def test_a_study_that_was_changed_does_not_go_on_in_its_old_folder(study: Path) -> None:
    config = study / "0" / names.CONFIG
    text = config.read_text()
    config.write_text(text.replace("batch_size: 128", "batch_size: 64"))
    done = swept(f"resume={study}")
    config.write_text(text)
    assert done.returncode == 2
    assert f"{study}/0 was trained with data.batch_size=64, and now it is 128" in done.stderr


def test_a_jobs_precision_is_compared_with_what_auto_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ("seed=1",)
    config = compose(*QUICK, "trainer.precision=auto")
    made = {**config, "trainer": {**config["trainer"], "precision": "bf16-mixed"}}  # by a run that was started
    sweeps.SweepFolder(tmp_path).prepare(job, made)
    for here, has_bfloat16 in ((True, True), (False, False)):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, answer=has_bfloat16: answer)
        check_unchanged(tmp_path, {job: config}, here)
    with pytest.raises(UserError) as refused:
        check_unchanged(tmp_path, {job: config}, here=True)
    assert str(refused.value) == (
        f"{tmp_path}/0 was trained with trainer.precision=bf16-mixed, and now it is 32-true, which auto is on this "
        f"machine: for the changed study choose another hydra.sweep.dir, or write trainer.precision=bf16-mixed into "
        f"its file"
    )
    with pytest.raises(UserError, match=r"=bf16-mixed, and now it is 32-true: for the changed study .*r$"):
        check_unchanged(tmp_path, {job: compose(*QUICK)}, here=False)
    waiting = ("seed=2",)
    sweeps.SweepFolder(tmp_path).prepare(waiting, config)  # it was not started, and has auto
    check_unchanged(tmp_path, {waiting: config}, here=True)


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (1000, 1, "1000"),
        (1024, 1, "1024"),
        (1024, 0.5, "512"),
        (70, 0.1, "7"),
        (1024, 1.5, "1536"),
        (1, 0.25, "0.25"),
        (0.0012345, 1, "0.0012345"),
        (0.0012345, 10, "0.0123"),
        (0.004, 1, "0.004"),
        (1.0, 1, "1"),
        (0.1, 3, "0.3"),
        (1e-5, 1, "1e-05"),
    ],
)
def test_a_search_tries_whole_numbers_as_they_are_and_others_with_three_digits(
    value: float, factor: float, expected: str
) -> None:
    assert multiplied(value, factor) == expected


def content(**changes: Any) -> dict[str, Any]:
    """A study of three rows by hand; the third has diverged with seed 2."""
    values = {"a": [0.70, 0.80, 0.75], "b": [0.76, 0.84, 0.83], "c": [0.60, None, 0.90]}
    results = [
        {
            "row": row, "setting": "all", "value": f"optimizer.lr={lr}", "seed": seed, "seconds": 30.0,
            "status": "completed" if value else "diverged", "findings": ["divergence"] if not value else [],
            "metrics": {"test/acc": value, "fit_s": 10.0 * seed} if value else {},
        }
        for (row, some), lr in zip(values.items(), ("0.1", "0.01", "0.1"), strict=True)
        for seed, value in enumerate(some, 1)
    ]  # fmt: skip
    run = {"setting": "all", "status": "completed", "metric": 1, "seconds": 30.0}
    tried = [run | {"row": row, "value": f"optimizer.lr={lr}"} for row in values for lr in ("0.01", "0.1")]
    return {
        "study": "by_hand",
        "about": "Three rows.",
        "command": ["study=by_hand"],
        "rows": dict.fromkeys(values),
        "settings": {"all": []},
        "baseline": "a",
        "seeds": [1, 2, 3],
        "search": {
            "key": "optimizer.lr", "factors": [1, 10], "setting": None, "seed": 0, "metric": "val/acc", "runs": tried
        },
        "metrics": {"test/acc": "accuracy, %", "fit_s": "seconds"},
        "curves": {},
        "results": results,
        "threads": 1,
        "date": "2026-01-02",
        "machine": "a machine",
        "devices": ["1 x cpu"],
        "versions": {"lossfit": "1", "torch": "2", "lightning": "3"},
        "commits": ["0123456789abc"],
        **changes,
    }  # fmt: skip


def test_a_row_is_compared_with_the_baseline_on_the_same_seeds() -> None:
    found = cell(content(), "test/acc", "b", "all")
    assert found.mean == pytest.approx(0.81)
    assert found.deviation == pytest.approx(math.sqrt((0.05**2 + 0.03**2 + 0.02**2) / 2))
    assert found.difference == pytest.approx((0.06 + 0.04 + 0.08) / 3)
    assert found.error == pytest.approx(0.02 / math.sqrt(3))
    assert found.ahead
    two = cell(content(), "test/acc", "c", "all")
    assert two.difference == pytest.approx((-0.10 + 0.15) / 2), "without the seed that diverged"
    assert not two.ahead
    assert cell(content(), "test/acc", "a", "all").difference is None
    assert not cell(content(baseline="b"), "test/acc", "a", "all").ahead, "it is behind"
    assert cell(content(), "fit_s", "b", "all").difference is None, "seconds are not compared"
    assert comparisons(content()) == 2
    assert [chance(n) for n in (2, 5, 20)] == pytest.approx([stats.t(n - 1).sf(2) for n in (2, 5, 20)], abs=1e-6)


def test_the_table_has_difference_value_findings_and_runs() -> None:
    lines = studies.tables(content()).splitlines()
    assert lines[0] == "|  | accuracy, % | seconds | optimizer.lr | findings | runs that count |"
    assert lines[2].startswith("| a | 75.00 ± 5.00 | 20.00 ± 10.00 | 0.1 (highest) |")
    assert lines[3].startswith("| b | **81.00 ± 4.36 (+6.00 ± 1.15)** | 20.00 ± 10.00 | 0.01 (lowest) |")
    assert lines[4].startswith("| c | 75.00 ± 21.21, n=2 (+2.50 ± 12.50) |")
    assert lines[4].endswith("| divergence (1 of 3) | 2 of 3, 1 diverged |")
    several = studies.tables(content(settings={"all": [], "more": []})).splitlines()
    assert several[:3] == ["**accuracy, %**", "", "|  | all | more |"]
    assert "| b | **81.00 ± 4.36 (+6.00 ± 1.15)** | - |" in several


def test_the_best_value_is_that_of_a_completed_run() -> None:
    runs = [{"row": "a", "setting": "s", "value": f"lr={lr}", "status": "completed", "metric": lr} for lr in (1, 3, 2)]
    assert studies.best(runs, "a", "s", "val/acc") == "lr=3"
    assert studies.best(runs, "a", "s", "val/nll") == "lr=1"
    diverged = {"row": "a", "setting": "s", "value": "lr=9", "status": "diverged", "metric": None}
    assert studies.best([*runs, diverged], "a", "s", "val/acc") == "lr=3"
    assert studies.best([diverged], "a", "s", "val/acc") is None
    assert studies.best([*runs, diverged | {"status": "failed"}], "a", "s", "val/acc") is None, "it is trained first"


Script = Callable[..., tuple[int, str, str]]


def test_pages_are_made_from_results_alone(script: Script, tmp_path: Path) -> None:
    sweep, docs = tmp_path / "sweep", tmp_path / "docs"
    sweep.mkdir()
    typed = ["study=by_hand", "callbacks=[checkpoint]"]
    (sweep / names.STUDY_RESULT).write_text(json.dumps(content(command=typed)))
    docs.mkdir()
    (docs / "by_hand.txt").write_text("b is better than a.\n")
    assert script("studies", sweep, "--docs", docs)[0] == 0
    page = (docs / "by_hand.md").read_text()
    assert "    python train.py -m study=by_hand 'callbacks=[checkpoint]'\n" in page
    assert "2026-01-02; a machine, 1 thread a run, 1 x cpu; lossfit 1, torch 2, lightning 3; commit 0123456789." in page
    assert "\n\nThree rows.\n\nb is better than a.\n\n" in page
    assert "15 runs; the training of the median run took 30 s." in page
    assert "here that of c with seed 3, with as many threads as in the study:\n\n    OMP_NUM_THREADS=1 python " in page
    assert " python train.py study=by_hand 'callbacks=[checkpoint]' optimizer.lr=0.1 seed=3\n" in page
    assert "with seed 0: 6 of the runs" in page
    assert "There are 2 comparisons. With 3 seeds, a row that is as good as a is bold in 9% of them by chance." in page
    assert studies.tables(content()) in page
    assert "![by_hand](by_hand.png)" in page
    assert "- [By hand](by_hand.md)" in (docs / "index.md").read_text()
    assert (docs / "by_hand.png").stat().st_size > 10_000
    assert script("studies", "--docs", docs, "--check")[0] == 0
    (docs / "by_hand.md").write_text(page.replace("81.00", "82.00"))
    status, said, _ = script("studies", "--docs", docs, "--check")
    assert status == 1
    assert f"{docs}/by_hand.md is not what" in said
    status, _, said = script("studies", tmp_path, "--docs", docs)
    assert status == 2
    assert "study.json does not exist: a study writes it when all of its runs are done" in said
    status, _, said = script("studies", sweep, "--docs", docs / "by_hand.txt")
    assert (status, said.splitlines()[0]) == (2, f"Error: --docs {docs}/by_hand.txt cannot be made: File exists")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The study by hand with another value at a path, such as results.0.seed."""
    found = json.loads(json.dumps(content()))
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    inner = found
    for part in parents:
        inner = inner[part]
    inner[last] = value
    return found


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ([], "it must be a mapping, got []"),
        ({}, "study is missing"),
        ({key: value for key, value in content().items() if key != "search"}, "search is missing"),
        (changed("study", "../index"), "study must be a name for a file, got '../index'"),
        (changed("results", {}), "results must be a list, got {}"),
        (
            changed("results.1.metrics", {"test/acc": math.nan}),
            "results[1].metrics.test/acc must be a finite number, got",
        ),
        (changed("results.1.seed", 9), "results[1].seed must be one of seeds, got 9"),
        (changed("results.1.row", "d"), "results[1].row must be one of rows, got 'd'"),
        (changed("results.1.value", ""), "results[1].value must be an override with a number, got ''"),
        (changed("results.1.findings", [3]), "results[1].findings must be a list of texts or null, got [3]"),
        (changed("settings", {}), "settings must not be empty"),
        (changed("results", []), "results must not be empty"),
        (changed("rows.b", 3), "rows.b must be a list of texts or null, got 3"),
        (changed("curves", {"metric": "val/acc", "x": ["hour"]}), "curves must have metric, and x from"),
        (changed("curves", {"metric": "val/acc", "x": ["epoch"]}), "results[0].curve must be a list, got None"),
    ],
)
def test_a_damaged_file_takes_the_place_of_no_page(script: Script, tmp_path: Path, damaged: Any, expected: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    before = json.dumps(content())
    (docs / "by_hand.json").write_text(before)
    (tmp_path / names.STUDY_RESULT).write_text(json.dumps(damaged))
    status, _, said = script("studies", tmp_path, "--docs", docs)
    assert status == 2
    assert f"study.json has no results of a study: {expected}" in said
    assert [path.name for path in docs.iterdir()] == ["by_hand.json"]
    assert (docs / "by_hand.json").read_text() == before


@pytest.mark.parametrize("file", sorted((CONF / "study").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_rows_and_settings_of_a_study_are_options(file: Path) -> None:
    sweeper = yaml.safe_load(file.read_text())["hydra"]["sweeper"]
    for overrides in [*sweeper["rows"].values(), *sweeper.get("settings", {}).values()]:
        for override in overrides.split():
            group, _, option = override.partition("=")
            assert option
            assert not (CONF / group).is_dir() or option in option_files.options(group)
    assert sweeper.get("baseline", "none") in ("none", *sweeper["rows"])
    assert sweeper.get("search", {}).get("setting") in (None, *sweeper.get("settings", {}))
    known = set(metric_names.evaluation_names()) | {"loss", "fit_s", "balanced_acc", "temperature", "gradient_ratio"}
    assert {name.split("/recall/")[0].rpartition("/")[2] for name in sweeper["metrics"]} <= known | {"test"}


def test_the_pages_in_docs_are_current(script: Script) -> None:
    assert script("studies", "--check") == (0, "", "")
