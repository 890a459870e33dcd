"""scripts/bench/recipes.py: its tables, its picture, going on after a stop, and the rivals on the sample."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lossfit import runs
from lossfit.config import build
from lossfit.errors import RunError, UserError
from lossfit.option_files import options
from lossfit.system import locks
from tests import forks
from tests.conftest import ROOT, Command, compose

Run = dict[str, Any]
BENCH = ROOT / "scripts" / "bench"
LADDER = {  # name -> seconds and test accuracy
    "quickstart": (17, 0.764), "cnn": (111, 0.9225), "default": (40, 0.9285), "fast_90": (13.5, 0.904),
    "fast_92": (22.5, 0.9215), "fast_94": (106, 0.9402), "best": (3550, 0.955),
}  # fmt: skip
RIVALS = {
    "pytorch_quickstart": (30, 0.762), "fastai_light": (150, 0.924), "fastai_light_bf16": (70, 0.9238),
    "fastai_wide": (330, 0.929), "fastai_wide_bf16": (140, 0.9285),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The modules of the benchmark and of its rivals, which import one another as scripts of one folder do."""
    folders = [str(BENCH), str(BENCH / "rivals")]
    sys.path[:0] = folders
    names = ("recipes", "recipes_runs", "recipes_table", "recipes_picture", "rival", "quickstart", "fastai_resnet")
    yield {name: __import__(name) for name in names}
    for folder in folders:
        sys.path.remove(folder)


@pytest.fixture
def measuring(bench: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that starts runs; it writes below tmp_path."""
    monkeypatch.setattr(bench["recipes_runs"], "FOLDER", tmp_path / "bench")
    return bench["recipes_runs"]


def made_up(recipe: str, seed: int = 1, **values: Any) -> Run:
    run = {"recipe": recipe, "seed": seed, "rival": False, "digest": "a", "precision": "32-true", "epochs": 2}
    run |= {"parameters": 75434, "fit_s": 10.0, "test_s": 1.0, "seconds": 16.0, "val": 0.9, "test": 0.89, "load": 2.0}
    return run | {"curve": [[5.0, 0.86], [10.0, 0.9]]} | values


def cells(table: str, first: str) -> list[str]:
    """Return the cells of the row that begins with a text."""
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_has_mean_and_deviation_over_seeds(bench: dict[str, ModuleType]) -> None:
    measured = [
        made_up("late", 1, seconds=16.0, fit_s=9.0, val=0.91, test=0.90),
        made_up("rival", rival=True, seconds=3.0, test_s=0.5),
        made_up("late", 2, seconds=18.0, fit_s=11.0, val=0.91, test=0.92),
        made_up("early", seconds=15.0, tta="crops"),
    ]
    table = bench["recipes_table"].recipe_table(measured)
    assert cells(table, "`late`")[1:4] == ["2", "75,434", "32-true"]
    assert cells(table, "`late`")[4:7] == ["10.0 ± 1.4", "1.0 ± 0.0", "17.0 ± 1.4"]
    assert cells(table, "`late`")[7:] == ["91.00% ± 0.00", "91.00% ± 1.41", "2"]
    assert cells(table, "rival (rival)")[5:] == ["0.5", "3.0", "90.00%", "89.00%", "1"], "one seed has no deviation"
    assert [line.split()[1] for line in table.splitlines()[2:]] == ["`early`,", "`late`", "rival"]
    assert cells(table, "`early`, tested with tta=crops")[-1] == "1"


def test_a_level_has_the_seconds_of_the_first_validation_that_reaches_it_with_all_seeds(
    bench: dict[str, ModuleType],
) -> None:
    curves = [[[4.0, 0.86], [8.0, 0.93], [12.0, 0.91]], [[6.0, 0.85], [12.0, 0.915]]]
    measured = [made_up("one", seed, curve=curve) for seed, curve in enumerate(curves)]
    table = bench["recipes_table"].levels_table([*measured, made_up("never", curve=[[1.0, 0.5]])])
    assert cells(table, "recipe") == ["recipe", "85%", "88%", "90%", "91%", "92%", "93%"]
    assert cells(table, "one") == ["one", "5.0 ± 1.4", *["10.0 ± 2.8"] * 3, "", ""]
    assert "never" not in table
    assert bench["recipes_table"].levels_table([made_up("never", curve=[[1.0, 0.5]])]) == ""


def test_an_ablation_compares_runs_of_the_same_seed(bench: dict[str, ModuleType]) -> None:
    measured = [made_up("fast", 1, val=0.90, test=None), made_up("fast", 2, val=0.92, test=None)]
    measured += [made_up("fast, without x", 1, val=0.89), made_up("fast, without x", 2, val=0.89)]
    measured += [made_up("fast, without x", 3, val=0.89)]
    table = bench["recipes_table"].ablation_table(measured, "fast")
    assert cells(table, "`fast`")[1:3] == ["91.00% ± 1.41", ""]
    assert cells(table, "without x")[1:3] == ["89.00% ± 0.00", "-2.00 ± 1.41"], "-1 and -3 points"


def test_runs_beside_other_programs_are_named(bench: dict[str, ModuleType]) -> None:
    said = bench["recipes_table"].warnings([made_up("one", load=2.4), made_up("two", 3, load=4.04)], 2)
    assert "after 1 of 2 runs, two seed 3 (4.0)." in said
    assert bench["recipes_table"].warnings([made_up("one", load=2.4)], 2) == ""


def test_the_labels_of_the_picture_cover_neither_each_other_nor_a_point(bench: dict[str, ModuleType]) -> None:
    points = [(name, *at, False) for name, at in LADDER.items()] + [(name, *at, True) for name, at in RIVALS.items()]
    measured = [
        made_up(name, seed, rival=rival, seconds=seconds * (1 + seed / 100), test=accuracy + seed / 1000)
        for seed in (-1, 0, 1)
        for name, seconds, accuracy, rival in points
    ]
    figure = bench["recipes_picture"].picture([*measured, made_up("untested", test=None)], "a machine")
    (axes,) = figure.axes
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    names = [text for text in axes.texts if text.get_text()]
    assert {text.get_text() for text in names} == {*LADDER, *RIVALS}
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in names]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    centres = [axes.transData.transform((seconds, 100 * accuracy)) for _, seconds, accuracy, _ in points]
    assert not [box for box in boxes for centre in centres if box.contains(*centre)]
    inside = axes.get_window_extent()
    assert all(inside.contains(x, y) for box in boxes for x, y in box.corners())
    assert axes.get_xscale() == "log"
    low, high = axes.get_ylim()
    assert low < 76
    assert high > 95.5


def setting(measuring: ModuleType, *names: str, digest: str = "a") -> list[Any]:
    return [measuring.Recipe(name, (), digest, rival=True) for name in names]


@pytest.fixture
def train(
    bench: dict[str, ModuleType], measuring: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[str], list[tuple[str, int]]]]:
    """Call `train` with runs that are made up; return what failed and which runs were started."""

    def call(recipes: list[Any], seeds: int, bad: tuple[str, int, Exception] | None = None, *words: str) -> Any:
        started = []

        def measured(recipe: Any, seed: int) -> Run:
            started.append((recipe.name, seed))
            if bad and bad[:2] == (recipe.name, seed):
                raise bad[2]
            return made_up(recipe.name, seed, digest=recipe.digest)

        monkeypatch.setattr(measuring, "measured", measured)
        try:
            failed = bench["recipes"].train(recipes, seeds, tmp_path / "results" / "r.json", None, [*words])
        except KeyboardInterrupt:
            failed = ["stopped"]
        return failed, started

    return call


def of_file(tmp_path: Path) -> list[tuple[str, int, str]]:
    content = json.loads((tmp_path / "results" / "r.json").read_text())
    return [(run["recipe"], run["seed"], run["digest"]) for run in content["runs"]]


def test_a_stopped_benchmark_goes_on_where_it_stopped(train: Any, measuring: ModuleType, tmp_path: Path) -> None:
    recipes = setting(measuring, "one", "two")
    assert train(recipes, 2, ("one", 2, KeyboardInterrupt())) == (["stopped"], [("one", 1), ("two", 1), ("one", 2)])
    assert of_file(tmp_path) == [("one", 1, "a"), ("two", 1, "a")], "written after each run"
    assert train(recipes, 2) == ([], [("one", 2), ("two", 2)])
    assert train(recipes, 2) == ([], [])
    changed = [*setting(measuring, "one"), *setting(measuring, "two", digest="b")]
    assert train(changed, 1) == ([], [("two", 1)]), "a recipe that has changed is measured again"
    assert of_file(tmp_path) == [("one", 1, "a"), ("one", 2, "a"), ("two", 1, "b")], "and its old runs are dropped"


def test_a_run_that_fails_is_said_and_does_not_end_the_benchmark(
    train: Any, measuring: ModuleType, tmp_path: Path
) -> None:
    failed, started = train(setting(measuring, "one", "two"), 1, ("one", 1, RunError("out of memory")))
    assert (failed, started) == (["one seed 1: out of memory"], [("one", 1), ("two", 1)])
    assert of_file(tmp_path) == [("two", 1, "a")]


def test_results_of_other_overrides_or_machines_are_not_mixed(
    train: Any, bench: dict[str, ModuleType], measuring: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = setting(measuring, "one")
    train(recipes, 1)
    with pytest.raises(UserError, match=r"r\.json has results with other overrides: name another file with --json"):
        train(recipes, 1, None, "data.subset=100")
    monkeypatch.setitem(bench["recipes"].__dict__, "hardware", lambda: {"machine": "another"})
    with pytest.raises(UserError, match="has results with other hardware"):
        train(recipes, 1)


def test_the_report_says_the_command_and_the_hardware(bench: dict[str, ModuleType]) -> None:
    content = {"ablated": None, "overrides": ["data=sample"], "hardware": bench["recipes"].hardware(), "runs": []}
    said = bench["recipes"].report({**content, "runs": [made_up("fast")]})
    assert said.startswith("`python scripts/bench/recipes.py data=sample`, ")
    assert " cores, native bf16: " in said
    assert f"torch {torch.__version__.split('+')[0]}" in said
    ablated = bench["recipes"].report({**content, "ablated": "fast", "runs": [made_up("fast", test=None)]})
    assert ablated.startswith("`python scripts/bench/recipes.py --ablate fast data=sample`, ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "defalt"], "--only defalt: no recipe has this name (did you mean 'default'?)"),
        (["--ablate", "cnm"], "--ablate cnm: no recipe has this name (did you mean 'cnn'?)"),
        (["--ablate", ""], "--ablate : no recipe has this name"),
        (["--ablate", "cnn", "--only", "cnn"], "--ablate and --only exclude each other"),
        (["--seeds", "0"], "--seeds must be >= 1"),
        (["--table", "none.json"], "--table none.json: there is no such file"),
        (["--only", "cnn", "model.dropuot=0"], "model.dropuot: no such key (did you mean 'dropout'?)"),
        (
            ["--only", "default", "data=sample_rotation", "loss=mse"],
            "data=sample_rotation: recipes are compared by accuracy, got a regression task",
        ),
        (
            ["--ablate", "cnn", "data=sample_rotation", "loss=mse"],
            "data=sample_rotation: recipes are compared by accuracy, got a regression task",
        ),
        (
            ["--only", "fastai_wide", "data=sample_rotation", f"data.dir={ROOT}/tests/data"],
            "data=sample_rotation: the rivals need grey images of classes",
        ),
    ],
)
def test_mistakes(
    arguments: list[str], said: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, stderr = command("scripts/bench/recipes.py", *arguments)
    assert status == 2
    assert said in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ([], "it must be a mapping, got []"),
        ({}, "ablated is missing"),
        ({"runs": {}}, "runs must be a list, got {}"),
        ({"hardware": {"machine": "a machine"}}, "hardware.cores is missing"),
        ({"runs": [made_up("fast"), made_up("fast", 2, val="0.9")]}, "runs[1].val must be a finite number, got '0.9'"),
        ({"runs": [made_up("fast", test=float("nan"))]}, "runs[0].test must be a finite number or null, got nan"),
        ({"runs": [made_up("fast", seconds=0)]}, "runs[0].seconds must be a number > 0, got 0"),
        ({"runs": [made_up("fast", curve=[[1.0]])]}, "runs[0].curve[0] must be [seconds, accuracy], got [1.0]"),
    ],
)
def test_a_damaged_file_of_results(damaged: Any, said: str, bench: dict[str, ModuleType], tmp_path: Path) -> None:
    content = {"ablated": None, "overrides": [], "hardware": bench["recipes"].hardware(), "runs": [made_up("fast")]}
    file = tmp_path / "r.json"
    file.write_text(json.dumps(content))
    assert bench["recipes"].read(file) == content
    file.write_text(json.dumps(content | damaged if damaged else damaged))
    with pytest.raises(UserError) as refused:
        bench["recipes"].show(file)
    assert str(refused.value) == f"{file} is not a file of results of recipes.py: {said}"


def test_two_benchmarks_in_one_folder_exclude_each_other(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("logs/bench/recipes")
    folder.mkdir(parents=True)
    with locks.held(folder):
        status, stderr = command("scripts/bench/recipes.py", "--only", "cnn")
    assert (status, stderr.splitlines()[0]) == (2, f"Error: {folder}: another process is working on it")


def test_all_experiments_are_recipes(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_has_gpu", lambda: False)
    experiments = {name for name in options("experiment") if not name.startswith("gpu_")}
    assert set(measuring.known_recipes()) == {"default", *experiments, *measuring.RIVAL_SCRIPTS}
    monkeypatch.setattr(measuring.option_files, "options", lambda group: ["best", "fast_90", "gpu_94", "quickstart"])
    assert measuring.known_recipes()[:4] == ["quickstart", "default", "fast_90", "best"]
    monkeypatch.setattr(measuring, "_has_gpu", lambda: True)
    assert "gpu_94" in measuring.known_recipes()


def test_a_recipe_is_what_its_user_types(measuring: ModuleType) -> None:
    default, quickstart = measuring.chosen("default,quickstart", ["data=sample"])
    assert default.command(3)[1:] == ["data=sample", "seed=3"]
    assert quickstart.command(3)[1:] == ["experiment=quickstart", "data=sample", "seed=3"]
    assert default.digest != quickstart.digest
    assert default.digest == measuring.chosen("default", ["data=sample"])[0].digest


def test_an_ablation_leaves_out_what_a_recipe_does_not_have(
    measuring: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ablation.yaml"
    file.write_text("no shifts: [data.augment.translate=0]\nadamw: [optimizer=adamw]\nno x: [model.x=1]\n")
    monkeypatch.setattr(measuring, "ABLATION", file)
    whole, changed = measuring.ablated("cnn", [])
    assert (whole.name, changed.name) == ("cnn", "cnn, no shifts")
    assert changed.command(1)[1:] == ["experiment=cnn", "test=false", "data.augment.translate=0", "seed=1"]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "adamw: left out, cnn has optimizer=adamw already"
    assert second.startswith("no x: left out, cnn does not accept model.x=1 (model.x: no such key")


def test_fast_90_can_be_trained_without_each_part(measuring: ModuleType) -> None:
    changes = yaml.safe_load(measuring.ABLATION.read_text())
    recipes = measuring.ablated("fast_90", ["model.widths=[16,32,64]", "data/augment=mirror"])
    assert [recipe.name for recipe in recipes] == ["fast_90", *(f"fast_90, {change}" for change in changes)]


def test_a_run_of_lossfit(measuring: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def forked(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return forks.run(command[1:])

    monkeypatch.setattr(measuring.subprocess, "run", forked)
    words = ["data=sample", "model=linear", "trainer.max_epochs=2", "trainer=cpu"]
    (recipe,) = measuring.chosen("default", words)
    run = measuring.measured(recipe, 3)
    folder = measuring.FOLDER / "runs" / "default" / "3"
    result = runs.read_result(folder)
    assert runs.read_config(folder)["seed"] == 3
    assert (run["val"], run["test"]) == (result["metrics"]["val/acc"], result["metrics"]["test/acc"])
    assert (run["epochs"], run["parameters"], run["precision"]) == (2, 7850, result["devices"].split()[-1])
    assert 0 < run["fit_s"] + run["test_s"] < run["seconds"]
    assert [value for _, value in run["curve"]] == [*runs.curve(folder, "val/acc").values()]
    assert [seconds for seconds, _ in run["curve"]] == sorted(seconds for seconds, _ in run["curve"])
    assert run["curve"][-1][0] == pytest.approx(run["fit_s"], abs=0.002), "the last epoch ends with the training"
    del result["metrics"]["test/acc"], result["timings"]["test_s"]
    (folder / "result.json").write_text(json.dumps(result))
    untested = measuring.of_run(folder)
    assert (untested["test"], untested["test_s"]) == (None, 0), "test=false"


def test_a_command_that_fails(measuring: ModuleType) -> None:
    code = "import sys; print('Error: no room\\n(a hint)', file=sys.stderr); sys.exit(2)"
    with pytest.raises(RunError, match=r"ended with status 2: Error: no room$"):
        measuring.start(["-c", code])


def test_the_networks_of_the_rivals(bench: dict[str, ModuleType]) -> None:
    def size(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    images = torch.randn(3, 1, 28, 28)
    light, wide = (bench["fastai_resnet"].network(wide) for wide in (False, True))
    assert (size(light), size(wide)) == (1_224_948, 4_907_588), "as the notebook prints"
    assert light(images).shape == wide(images).shape == (3, 10)
    assert [block(images).shape[1:] for block in (light[:1], light[:5], wide[:6])] == [
        (16, 28, 28),
        (256, 2, 2),
        (512, 1, 1),
    ]
    activation = bench["fastai_resnet"].Activation()
    assert torch.allclose(activation(torch.tensor([-1.0, 1.0])), torch.tensor([-0.5, 0.6]))
    assert light[1].convolutions[0][0].weight.std().item() == pytest.approx((2 / 1.01 / (16 * 9)) ** 0.5, rel=0.1), (
        "Kaiming"
    )
    tutorial = bench["quickstart"].network()
    assert size(tutorial) == (784 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 10
    assert tutorial(images).shape == (3, 10)


def test_rivals_train_on_the_images_of_lossfit(bench: dict[str, ModuleType], measuring: ModuleType) -> None:
    folder, _, val = measuring.prepared_data(["data=sample"])
    data = build(compose("data=sample")["data"], "data")
    data.setup()
    found = bench["rival"].splits(Path(folder), int(val))
    for split in ("train", "val", "test"):
        for ours, theirs in zip(data.splits[split], found[split], strict=True):
            assert torch.equal(ours, theirs.cpu())


@pytest.mark.parametrize(
    ("name", "script", "switches"),
    [
        ("pytorch_quickstart", "quickstart", []),
        ("fastai_light", "fastai_resnet", []),
        ("fastai_wide_bf16", "fastai_resnet", ["--wide", "--bf16"]),
    ],
)
def test_rivals_on_the_sample(
    name: str, script: str, switches: list[str], bench: dict[str, ModuleType], measuring: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (recipe,) = measuring.chosen(name, ["data=sample", "data.subset=100"])
    file, *arguments = recipe.command(seed=2)
    assert (Path(file).stem, arguments[: len(switches)]) == (script, switches)
    out = tmp_path / "result.json"
    results = []
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [file, *arguments, "--out", str(out), "--epochs", "2"])
        bench[script].main()
        results.append(json.loads(out.read_text()))
    result = results[0]
    assert set(result) == {"epochs", "parameters", "curve", "fit_s", "test_s", "val", "test"}
    assert (result["epochs"], len(result["curve"]), result["curve"][-1][1]) == (2, 2, result["val"])
    assert 0 < result["curve"][0][0] < result["curve"][1][0] <= result["fit_s"]
    assert 100 * result["val"] == pytest.approx(round(100 * result["val"])), "of 100 images"
    assert 200 * result["test"] == pytest.approx(round(200 * result["test"])), "of 200 images"
    assert [one["test"] for one in results] == [result["test"]] * 2, "the seed decides"
