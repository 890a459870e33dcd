"""Every command of README.md and docs/ is run, on the small sample where it would take long; every link is followed.

The commands are run in forks of one process (forks.py). Commands that come to the same on the sample are run once.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import lossfit
from lossfit import runs
from lossfit.models.linear import Linear
from lossfit.tasks import metric_names
from tests import forks, photos
from tests.conftest import NO_PICTURES, ROOT, fit, sample
from tests.test_losses import for_task

DOCS = ROOT / "docs"
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    if page.name not in ("losses_choosing.md", "losses_measured.md")  # are parts of losses.md
}
README, OWN_CODE, OWN_IMAGES = (PAGES[name] for name in ("README.md", "docs/own_code.md", "docs/own_images.md"))
DIAGNOSIS = PAGES["docs/diagnosis.md"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROGRAMS = ("python", "pip", "pytest", "tensorboard", "torchrun", "ruff", "mypy", "mkdocs", "git")
SMALL = ["data=sample", "trainer.max_epochs=1", "data.subset=200"]
SMALL_FOLDER = ["data.image_size=32", "data.workers=0", "trainer.max_epochs=1"]
NEEDED = {  # as the entry of this loss says
    "python train.py loss=custom": ["loss.function=my_losses.tempered"],
    "python train.py 'data.classes=[Shirt,Pullover]' loss=bce": ["data.val_size=20", "data.subset=80"],
}
SAMPLES = {"data=fashion_mnist_rotation": "data=sample_rotation"}
DIVERGES = "optimizer.lr=30"  # a run that docs/diagnosis.md says ends so
LOSSES_ROW = "losses, the first choice in front"
WEIGHTS = "model.weights=resnet18.safetensors"  # pretrained weights need the network
TINY = ["data=sample", "data.subset=200", "model=linear"]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def commands(page: str) -> Iterator[str]:
    """Yield the commands of a page's code blocks, and those in its text."""
    for block in re.findall(r"^(?:    .+\n)+|^```bash\n(?:.+\n)+?```", page, flags=re.MULTILINE):
        for line in block.strip("`").removeprefix("bash").replace("\\\n", " ").splitlines():
            for command in re.sub(r"\s#.*", "", line).split("&&"):
                if command.split()[:1] and command.split()[0] in PROGRAMS:
                    yield " ".join(command.split())
    for command in re.findall(r"`([^`]+)`", re.sub(r"```.+?```", "", page, flags=re.DOTALL)):
        program, *arguments = command.split()
        if program in PROGRAMS and arguments:
            yield " ".join([program, *arguments])


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.+?)```", page, flags=re.DOTALL)


def small(command: str) -> tuple[str, ...]:
    """Return the arguments of a training that takes seconds, and of a sweep that has two jobs."""
    arguments = shlex.split(command)[2:]
    if "resume=" in command or "--help" in arguments or "--cfg" in arguments:
        return tuple(a.replace("max_epochs=20", "max_epochs=2") for a in arguments)
    data = [SAMPLES.get(a, a) for a in arguments if a.startswith("data=")]
    replaced = ("data=", "data.subset=", "trainer.max_epochs=", "data.image_size=")
    arguments = [a for a in arguments if not a.startswith(replaced)]
    arguments = [WEIGHTS if a.startswith("model.weights=") else a for a in arguments]
    arguments += (SMALL_FOLDER if "data=folder" in command else SMALL) + data  # of two values, the last is used
    arguments = [a.replace("range(0,5)", "range(0,2)") for a in arguments]
    if "callbacks" not in command and command not in commands(README):  # pictures take half of the time
        arguments.append(NO_PICTURES)
    if "-m" in arguments:
        lists = [n for n, argument in enumerate(arguments) if re.fullmatch(r"[\w./]+=[\w.]+(,[\w.]+)+", argument)]
        for n in lists:
            key, _, values = arguments[n].partition("=")
            one = n != lists[0] or ("ddp" in command and "launcher" not in command)  # ranks are slow to start
            arguments[n] = f"{key}={','.join(values.split(',')[-1 if one else -2 :])}"
    if "study=" in command and "-m" in arguments:  # one run for each row
        arguments += ["hydra.sweeper.seeds=[1]", "hydra.sweeper.search.factors=[]"]
    if {"optuna", "search"} & set(re.findall(r"\w+", command)):
        arguments = [a for a in arguments if "n_trials" not in a] + ["hydra.sweeper.n_trials=2"]
    return tuple(arguments)


COMMANDS = list(dict.fromkeys(command for page in PAGES.values() for command in commands(page)))
TRAINING = [c for c in COMMANDS if c.startswith("python train.py") and "hydra/launcher" not in c]
LAUNCHED = [c for c in COMMANDS if "hydra/launcher=" in c]
OF_OWN_IMAGES = [c for c in commands(OWN_IMAGES) if c.startswith("python scripts/")]
ON_A_RUN = list(dict.fromkeys(c for c in COMMANDS if " RUN" in c))
ON_A_RUN = [c for c in ON_A_RUN if c not in OF_OWN_IMAGES]
SCRIPTS = {c.split()[1] for c in COMMANDS if c.startswith("python scripts/")}


def test_the_two_lines_that_open_the_readme() -> None:
    opening = README.splitlines()
    assert opening[2] == "    pip install -e . && python train.py optimizer=adam loss=focal"
    assert opening[4] == '    pip install -e ".[dev]" && pytest'


def test_the_readme_is_one_screen() -> None:
    assert len(README.splitlines()) <= 60


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(("pip", "pytest", "ruff", "mypy"))])
def test_installing_and_testing_are_what_ci_does(command: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    part = re.fullmatch(r'pip install -e "\.\[(\w+)\]"', command)
    assert command in CI or command == "pip install -e ." or (part and part[1] in extras)


def own_images(folder: Path) -> Path:
    """Images of two classes, with a table of values and one of sets of classes; return their folder."""
    files = [str(file.relative_to(folder)) for file in sorted(photos.make(folder).rglob("*.png"))]
    ages = [f"{file},{number}" for number, file in enumerate(files)]
    tags = [f"{file},{('sea;sun', 'sea', 'sun', '')[number % 4]}" for number, file in enumerate(files)]
    (folder / "ages.csv").write_text("\n".join(["path,age [years]", *ages]))
    (folder / "tags.csv").write_text("\n".join(["path,tags", *tags]))
    return folder


@pytest.fixture(scope="session")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights for timm's resnet18, with its head of 1,000 classes."""
    import timm
    from safetensors.torch import save_file

    file = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(timm.create_model("resnet18").state_dict(), file)
    return str(file)


@pytest.mark.parametrize("command", {small(command): command for command in TRAINING}.values())
def test_train_commands(command: str, trained: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arguments = list(small(command))
    if WEIGHTS in arguments:
        file = request.getfixturevalue("resnet18")
        arguments = [a.replace(WEIGHTS, f"model.weights={file}") for a in arguments]
    if "data=stream" in arguments:
        done = forks.run(["scripts/stream.py", "data=sample", "--out", str(tmp_path / "stream")])
        assert done.returncode == 0, done.stderr
        arguments = [a.replace("FOLDER", str(tmp_path / "stream")) for a in arguments]
        arguments = [a for a in arguments if a not in ("data=sample", "data.subset=200")]
    if "data=folder" in command:
        arguments = [a.replace("data.dir=photos", f"data.dir={own_images(tmp_path / 'photos')}") for a in arguments]
        arguments += [f"data.cache_dir={tmp_path}/cache"]
    if "SWEEP" in command:  # begun, with nothing trained yet
        (tmp_path / "old").mkdir()
        runs.write_signed(tmp_path / "old" / "sweep.yaml", [*SMALL, "trainer=cpu", "model=linear", "seed=1,2"])
    elif "RUN" in command:
        shutil.copytree(trained, tmp_path / "old")
        (tmp_path / "old" / "noise.json").write_text('{"Shirt": {"Coat": 0.1}}')  # of scripts/noise_matrix.py
    arguments = [re.sub(r"logs/train/\w+/(RUN|SWEEP)", str(tmp_path / "old"), argument) for argument in arguments]
    if "init_from=" in command:
        arguments += ["model=linear"]
    if "resume=" not in command and not {"--help", "--cfg"} & set(arguments):
        arguments += [f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
    elif command == "python train.py resume=logs/train/runs/RUN":
        arguments += ["trainer.max_epochs=2"]  # it is complete
    arguments += NEEDED.get(command, [])
    for block in python_blocks(OWN_CODE):
        if block.startswith("# my_"):
            (tmp_path / block.split()[1]).write_text(block)
    done = forks.run(["train.py", *arguments], env={"PYTHONPATH": str(tmp_path)}, ranks=1 if "ddp" in command else 0)
    assert done.returncode == 0 or (DIVERGES in command and "The run diverged" in done.stderr), done.stderr
    assert done.stdout


def test_the_recipe_that_is_shown_is_the_file() -> None:
    (shown,) = re.findall(r"```yaml\n(.+?)```", PAGES["docs/options.md"], flags=re.DOTALL)
    assert shown == (ROOT / "conf" / "experiment" / "fast_94.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", [c for c in TRAINING if "-m" in c.split()])
def test_the_options_of_a_sweep_exist(command: str) -> None:
    for argument in shlex.split(command)[3:]:
        group, _, options = argument.lstrip("+").partition("=")
        if (ROOT / "conf" / group).is_dir():
            chosen = [option for option in options.split(",") if option != "[]"]  # none
            assert [o for o in chosen if not (ROOT / "conf" / group / f"{o}.yaml").is_file()] == []


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        (
            "speed",
            ["--repeats", "1", "--epochs", "1", "--losses", "ldam", "--parts", "abc", "data=sample"],
            r"lossfit / bare loop, CNN: \d.*s an epoch\)\nldam / cross_entropy, CNN: \d.*ms a step\)\n",
        ),
        pytest.param(
            "speed",
            ["--repeats", "1", "--epochs", "1", "--jobs", "2", "--parts", "d", "data=sample"],
            r"sweep of 2 runs / 2 runs in one process, MLP: \d.*s\)\n\d+ jobs at once / one job, MLP: \d.*s\)\n",
            marks=pytest.mark.slow,
        ),
        (
            "losses_by_optimizers",
            ["--losses", "mse", "--optimizers", "adam,sgd", *TINY],
            r"\| mse +\|( +0\.\d{4} +\|)+$",
        ),
        ("kill_and_resume", ["--times", "0", "model=linear", "trainer.max_epochs=2"], "0 of 0 ended in"),
        pytest.param("kill_and_resume", ["--times", "1", "model=linear"], "1 of 1 ended in", marks=pytest.mark.slow),
        (
            "images",
            ["--images", "200", "--repeats", "1", "--map-gb", "0.01"],
            r"mapped: \d.*pair.*\n(.*\n)*making the map / one pass: \d.*\nmemory: ",
        ),
        (
            "recipes",
            ["--only", "pytorch_quickstart", "--seeds", "1", "data=sample"],
            r"\| pytorch_quickstart \(rival\) \| 5 +\| 669,706 +\|(.*\n)+Picture  logs/bench/recipes/recipes\.png",
        ),
        ("sweep_report", ["--runs", "30"], r"report of 30 runs: \d.* s, 0\.\d+ MB"),
        ("stream", ["data=sample", "--out", "out"], r"out: classification, images 1 x 28 x 28, 500 train, 100 val"),
        ("lr_find", ["loss=huber", "optimizer=sgd", "--low", "1e-4", *TINY], r"Suggestion  optimizer\.lr=\d"),
        ("advise", ["data=sample"], r"\n    python train\.py data=sample trainer\.max_epochs=75\n"),
    ],
)
def test_scripts(script: str, arguments: list[str], expected: str, tmp_path: Path) -> None:
    (name,) = {name for name in SCRIPTS if Path(name).stem == script}
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    done = forks.run([str(ROOT / name), *arguments], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout), done.stdout


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_the_help_of_a_script_names_its_command(script: str) -> None:
    done = forks.run([script, "--help"])
    assert done.returncode == 0, done.stderr
    assert f"python {script}" in done.stdout


def calibrate(run: Path) -> None:
    done = forks.run(["scripts/evaluate.py", str(run), "--calibrate"])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ON_A_RUN)
def test_commands_on_a_trained_run(command: str, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "photos").mkdir()
    Image.fromarray(sample()[0][0, 0].numpy()).save(tmp_path / "photos" / "boot.png")
    if "--calibrated" in command:
        calibrate(run)
    arguments = [{"RUN": str(run), "photos/": str(tmp_path / "photos")}.get(a, a) for a in shlex.split(command)[1:]]
    done = forks.run(arguments)
    assert done.returncode == 0, done.stderr
    expected = {
        "evaluate": r"acc +0\.\d+ \(",
        "predict": r"boot\.png  0\.\d+ [A-Z]",
        "export": r"0 predictions differ",
        "report": r"run/report\.html  0\.\d+ MB",
        "diagnose": r"by 16 rules on 1 evaluation and \d+ recorded steps",
        "noise_matrix": r"Train with loss=forward_correction loss\.noise=\S+/run/noise\.json",
    }
    assert re.search(expected[Path(arguments[0]).stem], done.stdout), done.stdout


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run named RUN on the folder photos, with new_photos beside it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "new_photos").mkdir()
    photos.image(7, 30).save(folder / "new_photos" / "1.png")
    own_images(folder / "photos")
    with chdir(folder):
        fit(Path("RUN"), "data=folder", "data.dir=photos", *SMALL_FOLDER, "callbacks=checkpoint")
    return folder


@pytest.mark.parametrize("command", OF_OWN_IMAGES)
def test_scripts_on_a_run_of_own_images(command: str, own_run: Path) -> None:
    script, *arguments = shlex.split(command)[1:]
    done = forks.run([str(ROOT / script), *arguments], cwd=own_run)
    assert done.returncode == 0, done.stderr
    expected = {
        "evaluate": r"test split, 4 images.*\n +acc +[01]\.\d+ \(",
        "predict": r"new_photos/1\.png  0\.\d+ (cat|dog)",
        "export": r"classifier\.onnx .* on 4 test images 0 predictions differ",
        "stream": r"FOLDER: classification, images 3 x 224 x 224, 32 train, 4 val, 4 test",
    }
    assert re.search(expected[Path(script).stem], done.stdout), done.stdout


def last_value(code: str, run: Path, image: Path) -> object:
    """Run a block of code on a run and an image; return the value of its last line."""
    code = code.replace('"logs/train/runs/RUN"', repr(str(run))).replace('"photo.png"', repr(str(image)))
    *before, last = ast.parse(code).body
    assert isinstance(last, ast.Expr)
    scope: dict[str, object] = {}
    exec(compile(ast.Module(before, []), "<page>", "exec"), scope)
    return eval(compile(ast.Expression(last.value), "<page>", "eval"), scope)


def test_the_code_of_own_images(own_run: Path) -> None:
    (code,) = python_blocks(OWN_IMAGES)
    assert last_value(code, own_run / "RUN", own_run / "new_photos" / "1.png") in (["cat"], ["dog"])


@pytest.fixture(scope="module")
def run_of_each_task(own_run: Path, trained: Path) -> dict[str, Path]:
    with chdir(own_run):
        table = ["data.dir=photos", "data.table=tags.csv", *SMALL_FOLDER]
        fit(Path("tags"), "data=folder", *table, "loss=bce", "callbacks=checkpoint")
    with chdir(ROOT):
        fit(own_run / "angles", "data=sample_rotation", "loss=huber", "callbacks=checkpoint")
    return {"classification": trained, "multilabel": own_run / "tags", "regression": own_run / "angles"}


@pytest.mark.parametrize("code", python_blocks(PAGES["docs/tasks.md"]))
def test_two_lines_load_a_model_of_each_task(code: str, run_of_each_task: dict[str, Path], own_run: Path) -> None:
    (task,) = (task for task in run_of_each_task if f"# {task}: " in code)
    found = last_value(code, run_of_each_task[task], own_run / "new_photos" / "1.png")
    if task == "classification":
        assert isinstance(found, list)
        assert set(found) < set(lossfit.load(run_of_each_task[task]).classes)
    elif task == "multilabel":
        assert found in ([["sea", "sun"]], [["sea"]], [["sun"]], [[]])
    else:
        assert isinstance(found, torch.Tensor)
        assert found.shape == (1, 1)
        assert -90 < found.item() < 90, "degrees"


def table(page: str, first_cell: str) -> Iterator[list[str]]:
    """Yield the cells of each row below the header of the first table whose rows include one that begins so."""
    tables = re.findall(r"^(?:\|.+\n)+", page, flags=re.MULTILINE)
    found = next(one for one in tables if f"\n| {first_cell} |" in one)
    for line in found.splitlines()[2:]:
        yield [cell.strip() for cell in line.split(" | ")]


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"`([\w/]+)`", cell))


def test_tasks_has_every_metric_of_each_task() -> None:
    written: dict[str, set[str]] = {}
    task = ""
    for cells in table(PAGES["docs/tasks.md"], "all"):
        task = cells[0].strip("| ") or task
        written.setdefault(task, set()).update(names_in(cells[1]))
    assert written.pop("all") == {"loss"}
    assert written == {
        task: {key.partition("/")[2] for key in metric_names.keys(task, ("val",), ("costs", "two classes"))} - {"loss"}
        for task in metric_names.TASKS
    }


def test_tasks_has_the_headline_and_the_losses_of_each_task() -> None:
    rows = {cells[0].strip("| "): cells[1:] for cells in table(PAGES["docs/tasks.md"], "headline metric")}
    for task, headline, losses in zip(metric_names.TASKS, rows["headline metric"], rows[LOSSES_ROW], strict=True):
        key = metric_names.headline(task)
        assert names_in(headline) == {key}
        assert ("higher" in headline) == (metric_names.direction_of(key) == "max")
        named, existing = names_in(losses), {*for_task(task)} - {"custom"}
        assert named < existing if task == "classification" else named == existing


@pytest.mark.parametrize("command", LAUNCHED)
def test_launchers(command: str, slurm: dict[str, str], tmp_path: Path) -> None:
    """On the processor, SLURM by a stand-in."""
    if "ray_cluster" in command:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    arguments = [*small(command), "model=linear", "trainer=cpu", f"hydra.sweep.dir={tmp_path}/sweep"]
    arguments = [argument for argument in arguments if argument not in ("trainer=ddp", "trainer.devices=4")]
    done = forks.run(["train.py", *arguments], env=slurm)
    assert done.returncode == 0, done.stderr
    assert [runs.status(tmp_path / "sweep" / job) for job in "01"] == ["completed"] * 2


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("torchrun --standalone")])
def test_torchrun(command: str, tmp_path: Path) -> None:
    arguments = [a.replace("logs/train/runs/NAME", f"{tmp_path}/run") for a in shlex.split(command)[1:]]
    done = forks.run(["-m", "torch.distributed.run", *arguments, *SMALL, "model=linear"])
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout
    assert runs.status(tmp_path / "run") == "completed"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python scripts/compare.py")])
def test_comparing(command: str, script: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "logs" / "train" / "multiruns" / "SWEEP" / "0")
    arguments = [re.sub("^(logs/|SWEEP)", rf"{tmp_path}/\1", argument) for argument in shlex.split(command)[2:]]
    status, said, _ = script("compare", *arguments)
    assert status == 0
    assert said.startswith("python train.py " if "--best" in command else "1 completed runs in 1 settings by val/")
    files = [Path(argument) for argument in arguments if Path(argument).name.startswith("SWEEP.")]
    assert all(file.stat().st_size for file in files)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python scripts/report.py logs/")])
def test_reporting(command: str, script: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "logs" / "train" / "multiruns" / "SWEEP" / "0")
    status, said, _ = script("report", *(re.sub("^logs/", f"{tmp_path}/logs/", a) for a in shlex.split(command)[2:]))
    assert status == 0
    assert re.search(r"SWEEP/report\.html  0\.\d+ MB", said)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python scripts/diagnose.py logs/")])
def test_diagnosing(command: str, script: Callable[..., tuple[int, str, str]], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "logs" / "train" / "multiruns" / "SWEEP" / "0")
    status, said, _ = script("diagnose", *(re.sub("^logs/", f"{tmp_path}/logs/", a) for a in shlex.split(command)[2:]))
    assert status == 0
    assert "1 diagnosed run of 1: " in said


def found_by(page: str) -> dict[str, list[str]]:
    """Return the findings that a page shows, by the training command that stands before them."""
    shown: dict[str, list[str]] = {}
    command = ""
    for kind, block in re.findall(r"^```(bash|text)\n(.+?)```", page, flags=re.DOTALL | re.MULTILINE):
        if kind == "bash":
            command = next(iter(commands(f"```bash\n{block}```")), command)
        else:
            names = re.findall(r"^(?:Critical|Warning|Note): (\w+) since ", block, flags=re.MULTILINE)
            shown.setdefault(command, []).extend(names)
    return shown


def test_the_page_of_the_diagnosis_has_every_rule() -> None:
    rules = set(yaml.safe_load((ROOT / "conf/callbacks/diagnosis.yaml").read_text())["diagnosis"]["rules"])
    assert {name for cells in table(DIAGNOSIS, "[`overfitting`](#overfitting)") for name in names_in(cells[0])} == rules
    assert {name for names in found_by(DIAGNOSIS).values() for name in names} == rules
    assert set(re.findall(r"^### (\w+)$", DIAGNOSIS, flags=re.MULTILINE)) == rules


@pytest.mark.slow
@pytest.mark.parametrize(("command", "names"), found_by(DIAGNOSIS).items())
def test_the_runs_of_the_diagnosis_have_their_findings(command: str, names: list[str], tmp_path: Path) -> None:
    done = forks.run(["train.py", *shlex.split(command)[2:], "trainer=cpu", f"hydra.run.dir={tmp_path}/run"])
    assert done.returncode in (0, 1), done.stderr
    assert set(names) <= set(runs.read_result(tmp_path / "run")["findings"])


def test_the_code_with_losses() -> None:
    (code,) = [code for code in python_blocks(PAGES["docs/api.md"]) if "lossfit.losses" in code]
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["logits"].grad.abs().sum() > 0
    assert list(scope["rare"].eval().state_dict()) == []


LOADING = [code for page in PAGES.values() for code in python_blocks(page) if "= lossfit.load" in code]


@pytest.mark.parametrize("code", LOADING)
def test_code_that_loads_a_run(code: str, trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    if "calibrated=True" in code:
        calibrate(run)
    scope = {"lossfit": lossfit, "images": sample()[0], "Net": Linear}
    exec(re.sub(r'"(logs/train/runs/)?RUN"', repr(str(run)), code), scope)
    assert isinstance(scope["classifier"], lossfit.TrainedModel)
    if "probabilities" in code:
        assert scope["probabilities"].shape == (200, 10)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("tensorboard")])
def test_tensorboard_serves_a_page(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *shlex.split(command)[1:], "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"TensorBoard" in page.read()
    finally:
        process.terminate()
        process.communicate()


def test_every_command_is_one_that_is_run_here() -> None:
    tested = ("pip install", "pytest", "python train.py", "tensorboard", "torchrun", "python -m lossfit")
    scripts = {
        "speed",
        "losses_by_optimizers",
        "kill_and_resume",
        "images",
        "lr_find",
        "compare",
        "evaluate",
        "predict",
        "export",
        "stream",
        "report",
        "sweep_report",
        "diagnose",
        "diagnosis",
        "recipes",
        "advise",
        "noise_matrix",
        "studies",  # in test_studies.py
    }
    assert [c for c in COMMANDS if not c.startswith((*tested, "python scripts/"))] == []
    assert {Path(name).stem for name in SCRIPTS} == scripts
    assert {c.split()[0] for c in COMMANDS} >= {"pip", "pytest", "python", "tensorboard"}
    assert len(TRAINING) > 30


def test_what_contributing_has_run_is_what_ci_does() -> None:
    checks = [c for c in commands(CONTRIBUTING) if c.startswith(("ruff", "mypy", "mkdocs build"))]
    assert {c.split()[0] for c in checks} == {"ruff", "mypy", "mkdocs"}
    assert [c for c in checks if c not in CI] == []


def anchors(page: str) -> set[str]:
    """Return the names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)]+)\)", page):
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), link
        assert not heading or heading in anchors(file.read_text(encoding="utf-8")), link


def test_the_site_has_every_page() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": (\w+\.md)$", site, flags=re.MULTILINE))
    assert named == {Path(name).name for name in PAGES if name != "README.md"} | {"CONTRIBUTING.md", "CHANGELOG.md"}
