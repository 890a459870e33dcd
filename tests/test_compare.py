"""Run folders become one leaderboard: which runs are compared, by which numbers, and which do not count and why."""

import csv
import functools
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from lossfit import compare, option_files, runs
from lossfit.compare.curves import mean_curve
from lossfit.compare.options import options
from lossfit.errors import UserError
from lossfit.system import locks
from lossfit.tasks import metric_names
from tests.conftest import QUICK, ROOT, fit
from tests.conftest import compose as slow_compose

Script = Callable[..., tuple[int, str, str]]
compose = functools.cache(slow_compose)


def put(
    folder: Path,
    *overrides: str,
    seed: int = 1,
    status: str | None = "completed",
    curve: Sequence[float | str] = (),
    reason: str | None = None,
    change: Callable[[dict[str, Any]], None] = lambda config: None,
    findings: list[str] | None = None,
    **metrics: float | None,
) -> Path:
    """Write a run folder as a run leaves it; `val_acc=0.5` is the metric val/acc, `fit_s` a timing."""
    (folder / "checkpoints").mkdir(parents=True)
    config = json.loads(json.dumps(compose(*overrides))) | {"seed": seed}
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    if curve:
        rows = [f"{epoch},{4 * epoch},{value},0.1" for epoch, value in enumerate(curve, 1)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,step,val/acc,train/loss", *rows]) + "\n")
    if status is not None:
        result = {
            "status": status,
            "reason": reason,
            "started": "2026-01-01T00:00:00+00:00",
            "seed": seed,
            "choices": config["choices"],
            "metrics": {name.replace("_", "/", 1): value for name, value in metrics.items() if name != "fit_s"},
            "timings": {"fit_s": metrics["fit_s"]} if "fit_s" in metrics else {},
        }
        result |= {} if findings is None else {"findings": findings}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def board(*folders: Path, metric: str = "val/acc", **given: Any) -> compare.Leaderboard:
    return compare.leaderboard([compare.read(folder) for folder in compare.find(folders)], metric, **given)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Path]:
    """Adam better than SGD by accuracy, over seeds 1, 2, 4; and one run of every other kind."""
    root = tmp_path / "sweep"
    for n, (seed, acc) in enumerate([(1, 0.7), (2, 0.8), (4, 0.9)]):
        put(root / f"{n}", "optimizer=sgd", seed=seed, val_acc=acc, val_nll=acc, fit_s=2.0, curve=[acc / 2, acc])
        put(root / f"{n + 10}", "optimizer=adam", seed=seed, val_acc=acc + 0.05, val_nll=acc, fit_s=3.0, curve=[acc])
    (root / "overrides.yaml").write_text("- optimizer=sgd,adam\n")
    put(root / "20", "optimizer=lion", status="failed", reason="RunError: loss\nis [nan]", curve=[0.25, 0.125])
    put(root / "21", "optimizer=sgd", seed=5, status="pruned", curve=[0.5])
    put(root / "22", "optimizer=sgd", seed=6, status="interrupted")
    put(root / "23", "optimizer=sgd", seed=7, status="running", curve=[0.5, 0.75, ""])
    put(root / "24", "optimizer=sgd", seed=8, status=None)
    put(root / "25", "optimizer=sgd", seed=9, status="running")
    with locks.held(root / "23"):
        yield root


def test_mean_and_sample_deviation_over_seeds(sweep: Path) -> None:
    found = board(sweep)
    assert found.columns == ["optimizer"], "though sgd and adam have other learning rates by default"
    assert [setting.options["optimizer"] for setting in found.settings] == ["adam", "sgd"]
    adam, sgd = found.settings
    assert [run.seed for run in sgd.runs] == [1, 2, 4]
    assert sgd.mean("val/acc") == pytest.approx(0.8)
    assert sgd.deviation("val/acc") == pytest.approx(0.1), "sqrt((0.1^2 + 0 + 0.1^2) / 2)"
    assert adam.mean("fit_s") == 3.0
    assert adam.mean("test/acc") is None


def test_one_run_has_no_deviation_and_no_columns(tmp_path: Path, script: Script) -> None:
    found = board(put(tmp_path / "run", val_acc=0.5))
    assert (found.columns, len(found.settings)) == ([], 1)
    assert found.settings[0].deviation("val/acc") is None
    said = script("compare", tmp_path / "run", "--png", tmp_path / "one.png")[1]
    assert re.search(r"^ n +val/acc *\n.*\n +1 +0\.5000 *$", said, re.MULTILINE), said


def test_a_lower_loss_is_better_and_direction_overrules_the_name(sweep: Path) -> None:
    assert metric_names.direction_of("val/acc") == "max"
    for metric in ("val/loss", "test/nll", "test/cost", "test/cost_argmax", "fit_s", "train/epoch_s"):
        assert metric_names.direction_of(metric) == "min"
    assert board(sweep, metric="fit_s").settings[0].options["optimizer"] == "sgd"
    assert board(sweep, metric="fit_s", direction="max").settings[0].options["optimizer"] == "adam"
    assert board(sweep, metric="val/nll").best().seed == 1
    assert metric_names.direction_of("val/lr") is None
    put(sweep / "40", "optimizer=sgd", val_lr=0.1)
    with pytest.raises(UserError, match="add --direction min or max"):
        board(sweep, metric="val/lr")


def differing(tmp_path: Path, *settings: tuple[str, ...], change: Any = None) -> list[str]:
    for n, overrides in enumerate(settings):
        put(tmp_path / f"{n}", *overrides, val_acc=0.5, **({"change": change[n]} if change else {}))
    return list(board(tmp_path).columns)


def test_a_key_is_a_column_where_it_differs_within_one_choice(tmp_path: Path) -> None:
    settings = [("optimizer=sgd",), ("optimizer=adam",), ("optimizer=adam", "optimizer.lr=0.5")]
    assert differing(tmp_path, *settings) == ["optimizer", "optimizer.lr"]
    assert len(board(tmp_path).settings) == 3


def test_what_cannot_change_results_is_no_column_and_splits_no_group(tmp_path: Path) -> None:
    settings = [(), ("logger=[csv]", "callbacks=[checkpoint]", "test=false", "trainer.log_every_n_steps=1")]

    def choose(config: dict[str, Any]) -> None:
        config["choices"] |= {name: list(config[name]) for name in ("callbacks", "logger")}

    put(tmp_path / "2", seed=2, val_acc=0.7, change=choose)
    assert differing(tmp_path, *settings, change=[choose, choose]) == []
    assert len(board(tmp_path).settings) == 1


def test_where_the_pixels_live_is_no_column(tmp_path: Path) -> None:
    where = ["data.store=mapped", "data.workers=3", "data.cache_dir=x", "data.memory_limit=2GB"]
    folder = ["data=folder", "data.dir=photos"]
    assert differing(tmp_path, folder, [*folder, *where]) == []
    assert len(board(tmp_path).settings) == 1


def test_a_callback_is_passive_by_the_mark_in_its_option_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = sum(file.read_text().count("# passive") for file in (ROOT / "conf" / "callbacks").glob("*.yaml"))
    assert len(option_files.passive_callbacks()) == marks + 1, "and the search's Pruning, which has no file"
    (tmp_path / "callbacks").mkdir()
    for name, mark in (("watcher", "  # passive"), ("teacher", "")):
        text = f"# @package callbacks\n# says so\n{name}:{mark}\n  _target_: mine.{name}\n  every: 3\n"
        (tmp_path / "callbacks" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(option_files, "CONF", tmp_path)
    option_files.passive_callbacks.cache_clear()
    nodes = {name: {"_target_": f"mine.{name}", "every": 3} for name in ("watcher", "teacher")}
    other = {"_target_": "mine.watcher", "function": "my.Teacher"}  # a mark is for a key and a target together
    found = options({"callbacks": {**nodes, "off": None, "other": other}})
    option_files.passive_callbacks.cache_clear()
    assert found == {
        "callbacks": "other, teacher",
        "callbacks.other._target_": "mine.watcher",
        "callbacks.other.function": "my.Teacher",
        "callbacks.teacher._target_": "mine.teacher",
        "callbacks.teacher.every": "3",
    }


def test_a_diagnosis_that_ends_runs_is_another_setting(tmp_path: Path) -> None:
    settings = [(), ("callbacks.diagnosis.samples=10",), ("callbacks.diagnosis.stop=[divergence]",)]
    assert differing(tmp_path, *settings) == ["callbacks"]
    found = [setting.options["callbacks"] for setting in board(tmp_path).settings]
    assert sorted(found) == ["checkpoint", "checkpoint, diagnosis"]


def test_callbacks_that_change_training_are_one_column(tmp_path: Path) -> None:
    settings = [
        ("callbacks=[checkpoint,pictures]",),
        ("callbacks=[checkpoint,early_stopping]",),
        ("callbacks=[checkpoint,early_stopping]", "callbacks.early_stopping.patience=2"),
        ("callbacks=[]",),
    ]
    assert differing(tmp_path, *settings) == ["callbacks", "callbacks.early_stopping.patience"]
    names = {setting.options["callbacks"] for setting in board(tmp_path).settings}
    assert names == {"none", "checkpoint", "checkpoint, early_stopping"}


@pytest.mark.parametrize("nested", [True, False])
def test_the_keys_of_a_group_within_a_group(tmp_path: Path, nested: bool) -> None:
    """data.mix.alpha is of data/mix; where a config does not say that choice, it goes by its _target_."""
    mixes = ("none", "mixup", "cutmix", "cutmix")

    def choose(mix: str, config: dict[str, Any]) -> None:
        assert config["choices"]["data/mix"] == mix
        if not nested:
            del config["choices"]["data/mix"]

    settings = [
        (f"data/mix={mix}", *extra) for mix, extra in zip(mixes, [(), (), (), ("data.mix.alpha=3",)], strict=True)
    ]
    change = [functools.partial(choose, mix) for mix in mixes]
    expected = "data/mix" if nested else "data.mix._target_"
    assert set(differing(tmp_path, *settings, change=change)) == {expected, "data.mix.alpha"}


def test_keys_that_only_some_runs_have(tmp_path: Path, script: Script) -> None:
    assert differing(tmp_path, (), ("+costs.Shirt.Coat=5",)) == ["costs.Shirt.Coat"]
    assert "costs.Shirt.Coat=5" not in script("compare", tmp_path)[1]
    assert re.search(r" - +1 +0\.5000", script("compare", tmp_path)[1])


def test_a_training_that_was_repeated_counts_once(tmp_path: Path) -> None:
    for n, acc in enumerate((0.5, 0.75)):
        put(tmp_path / f"{n}", seed=1, val_acc=acc)
    found = board(tmp_path)
    assert [setting.values("val/acc") for setting in found.settings] == [[0.75]]
    assert [(run.folder.name, run.reason) for run in found.others] == [
        ("0", "repeated by a later run of the same seed")
    ]


def test_runs_that_do_not_count_are_listed(sweep: Path, script: Script) -> None:
    status, said, _ = script("compare", sweep)
    assert status == 0
    lines = said.splitlines()
    assert lines[0] == (
        "6 completed runs in 2 settings by val/acc, higher is better; "
        "not counted: 1 failed, 1 killed, 1 interrupted, 1 pruned, 1 running, 1 waiting"
    )
    assert f"best run     {board(sweep).best().folder}" in lines
    expected = [
        f"failed       {sweep}/20  optimizer=lion, seed=1, epoch 2, val/acc 0.1250: RunError: loss is [nan]",
        f"killed       {sweep}/25  optimizer=sgd, seed=9: its process is gone",
        f"interrupted  {sweep}/22  optimizer=sgd, seed=6",
        f"pruned       {sweep}/21  optimizer=sgd, seed=5, epoch 1, val/acc 0.5000",
        f"running      {sweep}/23  optimizer=sgd, seed=7, epoch 3, val/acc 0.7500",
        f"waiting      {sweep}/24  optimizer=sgd, seed=8",
    ]
    assert lines[-6:] == expected


def test_damaged_files_and_nulls_are_listed_with_their_reason(sweep: Path, tmp_path: Path) -> None:
    (sweep / "0" / "result.json").write_text('{"status": "comple')
    (sweep / "1" / "config.yaml").write_text("a: [")
    put(sweep / "30", "optimizer=sgd", seed=9, val_acc=None, val_nll=0.5)
    put(sweep / "31", "optimizer=sgd", seed=10, val_acc=float("nan"))
    found = board(sweep)
    assert [run.seed for run in found.settings[0].runs] == [4], "of SGD, now ahead"
    others = {run.folder.name: (run.status, run.reason) for run in found.others}
    assert others["0"] == ("unreadable", "result.json is damaged")
    assert others["1"][0] == "unreadable"
    assert "cannot be read as YAML" in others["1"][1]
    assert others["30"] == others["31"] == ("completed", "its val/acc is not a finite number")


@pytest.mark.parametrize(
    "text",
    ["seed: !!bool x", "seed: !!int ''", "seed: !!timestamp x", f"seed: {hex(2**20000)}", "a: " + "[" * 90 + "]" * 90],
)
def test_a_config_that_no_run_writes_is_listed(text: str, sweep: Path) -> None:
    (sweep / "1" / "config.yaml").write_text(text)
    (run,) = (run for run in board(sweep).others if run.folder.name == "1")
    assert run.status == "unreadable"
    assert "config.yaml" in run.reason
    assert len(run.reason) < 600


def test_values_that_no_run_writes(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    escape = "\x1b[2J"
    put(tmp_path / "0", val_acc=0.5, seed=[1], curve=[1e308])  # type: ignore[arg-type]
    put(tmp_path / "1", val_acc=0.4, change=lambda config: config["optimizer"].update(lr=f"$x^ {escape}"))
    for n, value in enumerate((1e308, True, 10**400)):
        put(tmp_path / f"{n + 2}", val_acc=value, seed=n)
    put(tmp_path / f"{escape}5", status=f"a{escape}", reason=f"b{escape} \ud800")
    status, said, _ = script("compare", tmp_path, "--png", tmp_path / "x.png")
    assert status == 0
    assert said.startswith("2 completed runs in 2 settings")
    assert said.count("its val/acc is not a finite number") == 3
    assert "b\\x1b[2J \\ud800" in said
    assert "\x1b" not in said


def test_overrides_that_are_no_texts_are_refused(tmp_path: Path, script: Script) -> None:
    put(tmp_path / "0", val_acc=0.5)
    bomb = "".join(f"- &a{n} [{', '.join(['x' if n == 0 else f'*a{n - 1}'] * 9)}]\n" for n in range(12))
    (tmp_path / "0" / "overrides.yaml").write_text(bomb)  # 9 ** 12 values
    status, _, said = script("compare", tmp_path, "--best")
    assert (status, "overrides.yaml must hold a list of overrides" in said) == (2, True)


def test_a_row_that_is_being_written_is_left(tmp_path: Path) -> None:
    folder = put(tmp_path / "run", curve=[0.5, 0.6])
    with (folder / "metrics.csv").open("a") as stream:
        stream.write("3,1")
    assert runs.curve(folder, "val/acc") == {1: 0.5, 2: 0.6}
    assert runs.curve(folder, "val/nll") == runs.curve(tmp_path, "val/acc") == {}


def test_runs_are_found_once_in_the_order_of_their_numbers(sweep: Path, tmp_path: Path) -> None:
    put(sweep / "0" / "checkpoints" / "copy")
    put(sweep / ".hidden")
    (tmp_path / "link").symlink_to(sweep / "10")
    (sweep / "loop").symlink_to(tmp_path)
    names = [folder.name for folder in compare.find([sweep / "2", tmp_path / "link", tmp_path])]
    assert names == ["0", "1", "2", "link", "11", "12", "20", "21", "22", "23", "24", "25"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere holds no run: no such folder; name run folders, sweeps or parents of them"),
        (["src"], "src holds no run: no run folder, it or below it; name run folders,"),
        (
            ["{sweep}", "--metric", "val/ac"],
            r"--metric val/ac: no completed run has it \(known: fit_s, val/acc, val/nll\)",
        ),
        (["{sweep}", "--top", "0"], "--top must be >= 1, got 0"),
        (["{sweep}/24", "--best"], "no completed run has val/acc yet"),
        (["{sweep}/24", "--png", "{sweep}/a.png"], "--png: no completed run has val/acc yet"),
        (["{sweep}", "--x", "step"], "--x step is the x axis of the picture: add --png FILE"),
        (["{sweep}", "--png", "{sweep}/a.png", "--x", "seconds"], "--x seconds: .* no train/epoch_s; take --x epoch"),
        (["{sweep}", "--csv", "{sweep}/0/metrics.csv"], r"--csv \S+/metrics.csv would replace a file of a run: choose"),
        (["{sweep}", "--csv", "{sweep}/no/a.csv"], r"\S+/no/a.csv cannot be written: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, sweep: Path, script: Script) -> None:
    status, _, said = script("compare", *(argument.format(sweep=sweep) for argument in arguments))
    assert status == 2
    assert re.match(f"Error: {message}", said), said
    assert len(said.splitlines()) == 2, "the second says how to see the traceback"


def test_a_sweep_that_has_only_started_is_no_mistake(sweep: Path, script: Script) -> None:
    status, said, _ = script("compare", sweep / "23", sweep / "24")
    assert status == 0
    assert said.startswith("0 completed runs in 0 settings by val/acc")
    assert "not counted: 1 running, 1 waiting" in said


def test_files_hold_the_table(sweep: Path, tmp_path: Path, script: Script) -> None:
    files = [tmp_path / f"board.{kind}" for kind in ("csv", "md", "png")]
    arguments = [part for pair in zip(("--csv", "--markdown", "--png"), files, strict=True) for part in pair]
    assert script("compare", sweep, *arguments)[0] == 0
    with files[0].open(newline="") as stream:
        adam, sgd = csv.DictReader(stream)
    assert (adam["optimizer"], adam["n"], adam["seeds"], adam["fit_s"]) == ("adam", "3", "1 2 4", "3.0")
    assert float(sgd["val/acc mean"]) == pytest.approx(0.8)
    assert float(sgd["val/acc std"]) == pytest.approx(statistics.stdev([0.7, 0.8, 0.9]))
    lines = files[1].read_text().splitlines()
    assert lines[2] == "![val/acc](board.png)", "the picture that was made with it"
    lines = lines[:2] + lines[4:]
    assert lines[2:6] == [
        "| optimizer | n | val/acc | val/nll | fit_s |",
        "| --- | --: | --- | --: | --: |",
        "| adam | 3 | 0.8500 ± 0.1000 | 0.8000 | 3.00 |",
        "| sgd | 3 | 0.8000 ± 0.1000 | 0.8000 | 2.00 |",
    ]
    assert lines[7].startswith(f"- failed: {sweep}/20  optimizer=lion, seed=1, epoch 2")
    assert len(lines) == 13
    with Image.open(files[2]) as image:
        assert image.width > image.height > 300
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 50
    assert not list(tmp_path.glob(".*")), "no part of a file is left"


def test_a_column_says_what_the_runs_suffer_from(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for seed, found in enumerate([["divergence", "plateau"], ["plateau"]], 1):
        put(tmp_path / f"sgd{seed}", "optimizer=sgd", seed=seed, findings=found, val_acc=0.5)
    put(tmp_path / "adam", "optimizer=adam", findings=[], val_acc=0.9)
    put(tmp_path / "lion", "optimizer=lion", val_acc=0.1)
    put(tmp_path / "muon", "optimizer=muon", findings=["non_finite"], status="diverged", reason="nan")
    files = [tmp_path / f"table.{end}" for end in ("csv", "md")]
    said = script("compare", tmp_path, "--csv", files[0], "--markdown", files[1])[1]
    rows = [line.split() for line in said.splitlines()]
    assert rows[2] == ["optimizer", "n", "val/acc", "findings"]
    assert ["adam", "1", "0.9000", "none"] in rows
    assert ["lion", "1", "0.1000", "-"] in rows
    assert re.search(r"sgd +2 +0\.5000 ± 0\.0000 +plateau, *\n +divergence \(1 of 2\)", said), said
    assert re.search(r"diverged .*muon, seed=1, findings non_finite: nan", said), said
    written = {row["optimizer"]: row["findings"] for row in csv.DictReader(files[0].open())}
    assert written == {"adam": "none", "sgd": "plateau, divergence (1 of 2)", "lion": "-"}
    assert "| sgd | 2 | 0.5000 ± 0.0000 | plateau, divergence (1 of 2) |" in files[1].read_text().splitlines()
    monkeypatch.setenv("COLUMNS", "30")
    assert "n=2  optimizer=sgd  findings: plateau, divergence (1 of 2)" in script("compare", tmp_path)[1]


def test_without_a_finding_there_is_no_such_column(tmp_path: Path, script: Script) -> None:
    put(tmp_path / "a", findings=[], val_acc=0.5)
    (put(tmp_path / "b", seed=2, val_acc=0.5) / "result.json").write_text(
        (tmp_path / "a" / "result.json").read_text().replace('"findings": []', '"findings": ["a\\u001b[2J", 1]')
    )
    script("compare", tmp_path, "--csv", tmp_path / "x.csv", "--markdown", tmp_path / "x.md")
    assert "findings" not in script("compare", tmp_path)[1] + (tmp_path / "x.csv").read_text()
    assert "findings" not in (tmp_path / "x.md").read_text()


def test_curves_over_epochs_steps_and_seconds(tmp_path: Path, script: Script) -> None:
    for seed, seconds in ((1, "2.0"), (2, "4.0")):
        folder = put(tmp_path / f"{seed}", seed=seed, val_acc=0.9, curve=[0.5 * seed, 0.25 * seed])
        text = (
            (folder / "metrics.csv")
            .read_text()
            .replace("train/loss", "train/epoch_s")
            .replace(",0.1\n", f",{seconds}\n")
        )
        (folder / "metrics.csv").write_text(text)
    (setting,) = board(tmp_path).settings
    spread = statistics.stdev([0.5, 1.0])
    for x, places in (("epoch", (1, 2)), ("step", (5, 9)), ("seconds", (3, 6))):
        assert mean_curve(setting, "val/acc", x) == [(places[0], 0.75, spread), (places[1], 0.375, spread / 2)], x
        assert script("compare", tmp_path, "--png", tmp_path / f"{x}.png", "--x", x)[0] == 0
    assert (tmp_path / "step.png").read_bytes() != (tmp_path / "seconds.png").read_bytes()
    assert mean_curve(setting, "val/nll", "epoch") == []


def test_markdown_links_the_picture_from_its_own_folder(sweep: Path, tmp_path: Path, script: Script) -> None:
    (tmp_path / "notes").mkdir()
    files = [tmp_path / "notes" / "a.md", tmp_path / "a b.png"]
    assert script("compare", sweep, "--markdown", files[0], "--png", files[1])[0] == 0
    assert "![val/acc](../a%20b.png)" in files[0].read_text()
    assert script("compare", sweep, "--markdown", files[0])[0] == 0
    assert "![" not in files[0].read_text()


def test_top_limits_every_table(sweep: Path, tmp_path: Path, script: Script) -> None:
    said = script("compare", sweep, "--top", "1", "--csv", tmp_path / "a.csv", "--markdown", tmp_path / "a.md")[1]
    assert re.findall(r"^ (adam|sgd) ", said, re.MULTILINE) == ["adam"]
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
    assert "| sgd |" not in (tmp_path / "a.md").read_text()


def test_the_table_keeps_to_the_console(tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    metrics = {"val_acc": 0.5, "val_nll": 1.0, "test_acc": 0.5, "test_cost": 1.0, "fit_s": 1.0}
    for n, overrides in enumerate(
        [("loss=cross_entropy",), ("loss=label_smoothing",), ("optimizer=schedule_free_sgd",)]
    ):
        put(tmp_path / f"{n}", *overrides, "callbacks=[checkpoint,ema]" if n else "test=true", **metrics)
    said = script("compare", tmp_path)[1]
    table, _, hidden = said.partition("Too wide to show: ")
    assert hidden.startswith("test/acc, test/cost, fit_s; --csv and --markdown have all\nbest run     ")
    assert max(map(len, table.splitlines()[1:])) <= 80
    assert "schedule_free_sgd" in table


def test_best_prints_the_command_that_composes_to_the_same_config(tmp_path: Path, script: Script) -> None:
    typed = ["optimizer=adam", "optimizer.lr=0.5", "model.hidden=[32, 16]", *QUICK, "seed=null"]
    put(tmp_path / "0", "optimizer=sgd", val_acc=0.5)
    for n, (seed, acc) in enumerate([(1234, 0.9), (77, 0.8)], 1):
        folder = put(tmp_path / f"{n}", *typed[:-1], seed=seed, val_acc=acc)
        noise = [
            "hydra.sweep.dir=x",
            "hydra/launcher=basic",
            "+callbacks.pruning.monitor=val/acc",
            "~callbacks.pruning",
        ]
        (folder / "overrides.yaml").write_text(yaml.safe_dump([*noise, *typed]))
    status, said, _ = script("compare", tmp_path, "--best")
    assert status == 0
    words = shlex.split(said)
    assert words[:2] == ["python", "train.py"]
    assert "model.hidden=[32, 16]" in words
    assert "hydra" not in said
    assert "pruning" not in said
    assert slow_compose(*words[2:]) == yaml.safe_load((tmp_path / "1" / "config.yaml").read_text())


def test_runs_that_were_trained(tmp_path: Path) -> None:
    for seed in (1, 2):
        fit(tmp_path / f"{seed}", "model=linear", f"seed={seed}")
    found = board(tmp_path)
    assert [len(setting.runs) for setting in found.settings] == [2]
    values = [json.loads((tmp_path / f"{seed}/result.json").read_text())["metrics"]["val/acc"] for seed in (1, 2)]
    assert found.settings[0].mean("val/acc") == pytest.approx(sum(values) / 2)


def test_neither_torch_nor_lightning_is_imported(sweep: Path) -> None:
    code = (
        "import runpy, sys; sys.argv[1:] = sys.argv[2:]\n"
        f"runpy.run_path({str(ROOT / 'scripts/compare.py')!r}, run_name='__main__')\n"
        "print({'torch', 'lightning', 'hydra', 'matplotlib'} & set(sys.modules))"
    )

    def imported(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, "-", *arguments],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()[-1]

    assert imported(str(sweep)) == "set()"
    assert imported(str(sweep), "--png", str(sweep / "a.png")) == "{'matplotlib'}"


def test_a_thousand_runs(tmp_path: Path, script: Script) -> None:
    config = yaml.safe_dump(compose("seed=4321", "optimizer.lr=0.1234"), sort_keys=False)
    for n in range(1000):
        lr, seed = 1 + n // 3, n % 3
        folder = tmp_path / f"{n}"
        folder.mkdir()
        (folder / "config.yaml").write_text(config.replace("seed: 4321", f"seed: {seed}").replace("0.1234", f"{lr}"))
        result = {"status": "completed", "metrics": {"val/acc": (n // 3 + seed / 10) / 1000}}
        (folder / "result.json").write_text(json.dumps(result))
    said = script("compare", tmp_path, "--top", "2")[1]
    assert said.startswith("1000 completed runs in 334 settings")
    assert re.findall(r"^ (\d+) +(\d) +(\S.*\S) *$", said, re.MULTILINE) == [
        ("334", "1", "0.3330"),
        ("333", "3", "0.3321 ± 0.0001"),
    ]
