"""What recipes.py trains: lossfit's recipes and the rivals, each run as a process of its own, timed from its start."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from lossfit import cli, option_files, runs
from lossfit.config import Config, build, check, task_of
from lossfit.errors import ConfigError, RunError, UserError, did_you_mean
from lossfit.runs.result import git_revision
from lossfit.system.signals import die_with_parent
from lossfit.tasks.metric_names import CLASSIFICATION

FOLDER = Path("logs/bench/recipes")
TRAIN = option_files.CONF.parent / "train.py"
RIVALS = Path(__file__).parent / "rivals"
ABLATION = Path(__file__).with_name("ablation.yaml")
OUT = "result.json"  # of a rival
DEFAULT = "default"  # python train.py
OLDEST = ("quickstart", "cnn", DEFAULT)  # come first
RIVAL_SCRIPTS = {  # name -> script and switches
    "pytorch_quickstart": ("quickstart.py",),
    "fastai_light": ("fastai_resnet.py",),
    "fastai_light_bf16": ("fastai_resnet.py", "--bf16"),
    "fastai_wide": ("fastai_resnet.py", "--wide"),
    "fastai_wide_bf16": ("fastai_resnet.py", "--wide", "--bf16"),
}
WARM_UP = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "test=false"]


@dataclass(frozen=True)
class Recipe:
    """Something to train: overrides of train.py, or a rival's script and switches. digest: changes when it does."""

    name: str
    overrides: tuple[str, ...]
    digest: str
    rival: bool = False

    def command(self, seed: int) -> list[str]:
        """Return what a person types after `python`."""
        if self.rival:
            script, *switches = RIVAL_SCRIPTS[self.name]
            return [str(RIVALS / script), *switches, "--seed", str(seed), *self.overrides]
        return [str(TRAIN), *self.overrides, f"seed={seed}"]


def known_recipes() -> list[str]:
    """Return the names of all: the default, the files of conf/experiment, the rivals. gpu_* need a GPU."""
    experiments = [name for name in option_files.options("experiment") if not name.startswith("gpu_") or _has_gpu()]
    ladder = sorted({DEFAULT, *experiments}, key=lambda name: (*(name != old for old in OLDEST), name == "best", name))
    return [*ladder, *RIVAL_SCRIPTS]


def chosen(only: str | None, overrides: Sequence[str]) -> list[Recipe]:
    """Return the recipes with these names, with commas between, or all. overrides: of train.py, for all runs."""
    known = known_recipes()
    wanted = known if only is None else only.split(",")
    for name in wanted:
        if name not in known and name not in option_files.options("experiment"):
            raise UserError(f"--only {name}: no recipe has this name{did_you_mean(name, known)}")
    data = prepared_data(overrides) if set(wanted) & set(RIVAL_SCRIPTS) else ()
    return [
        Recipe(name, data, rival_digest(name, data), rival=True)
        if name in RIVAL_SCRIPTS
        else recipe(name, words_of(name), overrides)
        for name in wanted
    ]


def words_of(name: str) -> list[str]:
    """Return what is typed for a recipe of lossfit."""
    return [] if name == DEFAULT else [f"experiment={name}"]


def recipe(name: str, words: Sequence[str], overrides: Sequence[str]) -> Recipe:
    """Return a recipe of lossfit; raise what composing and checking its config raises.

    Raises UserError for data that are not of classes, since a recipe is measured by its accuracy.
    """
    words = (*words, *overrides)
    config = cli.composed(*words)
    check(config)
    if (task := task_of(config)) != CLASSIFICATION:
        raise UserError(f"data={config['choices'].get('data')}: recipes are compared by accuracy, got a {task} task")
    return Recipe(name, words, digest(config))


def ablated(name: str, overrides: Sequence[str]) -> list[Recipe]:
    """Return a recipe, and the recipe with each change of ablation.yaml; only validation is measured."""
    if name != DEFAULT and name not in option_files.options("experiment"):
        known = [DEFAULT, *option_files.options("experiment")]
        raise UserError(f"--ablate {name}: no recipe has this name{did_you_mean(name, known)}")
    overrides = [*overrides, "test=false"]
    whole = recipe(name, words_of(name), overrides)
    found = [whole]
    for change, words in yaml.safe_load(ABLATION.read_text(encoding="utf-8")).items():
        try:
            one = recipe(f"{name}, {change}", words_of(name), [*overrides, *words])
        except Exception as error:
            if not isinstance(error, ConfigError | UserError) and cli.explain(error) is None:
                raise
            reason = (cli.explain(error) or str(error)).splitlines()[0]
            print(f"{change}: left out, {name} does not accept {' '.join(words)} ({reason})", file=sys.stderr)
            continue
        if one.digest == whole.digest:
            print(f"{change}: left out, {name} has {' '.join(words)} already", file=sys.stderr)
        else:
            found.append(one)
    return found


def prepared_data(overrides: Sequence[str]) -> tuple[str, ...]:
    """Write lossfit's splits as the files that torchvision reads; return the rivals' arguments for them.

    The training file has lossfit's training images and then its validation images.
    """
    import torch
    from torchvision.datasets import FashionMNIST

    config = cli.composed(*overrides)
    data = build(config["data"], "data", seed=1)
    data.prepare_data()
    data.setup()
    if data.image_shape[0] != 1 or data.task.name != "classification":
        raise UserError(f"data={option_files.chosen(config).get('data')}: the rivals need grey images of classes")
    (images, labels), (val_images, val_labels) = data.splits["train"], data.splits["val"]
    files = {
        "train-images-idx3": torch.cat([images, val_images])[:, 0],
        "train-labels-idx1": torch.cat([labels, val_labels]),
        "t10k-images-idx3": data.splits["test"][0][:, 0],
        "t10k-labels-idx1": data.splits["test"][1],
    }
    raw = FOLDER / "data" / FashionMNIST.__name__ / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
        header = bytes([0, 0, 8, values.ndim])  # 8: unsigned bytes
        (raw / f"{name}-ubyte").write_bytes(header + sizes + values.to(torch.uint8).numpy().tobytes())
    return str(FOLDER / "data"), "--val", str(len(val_labels))


def rival_digest(name: str, data: Sequence[str]) -> str:
    """Return the digest of a rival's code, switches and splits."""
    script, *switches = RIVAL_SCRIPTS[name]
    files = [RIVALS / script, RIVALS / "rival.py", *sorted((FOLDER / "data").rglob("*-labels-idx1-ubyte"))]
    return digest([[hashlib.sha256(file.read_bytes()).hexdigest() for file in files], switches, *data])


def digest(content: Config | list[Any]) -> str:
    """Return a short digest of plain values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def warm_up(overrides: Iterable[str]) -> None:
    """Start a run of two steps that is not recorded: it reads from disk what all further ones have in memory."""
    start([str(TRAIN), *overrides, *WARM_UP, f"hydra.run.dir={fresh(FOLDER / 'runs' / 'warm_up')}"])


def measured(recipe: Recipe, seed: int) -> dict[str, Any]:
    """Train a recipe from its start to its end and return what was measured; raise RunError if it fails."""
    folder = fresh(FOLDER / "runs" / recipe.name.replace(" ", "_").replace(",", "") / str(seed))
    if recipe.rival:
        folder.mkdir(parents=True)
        seconds = start([*recipe.command(seed), "--out", str(folder / OUT)])
        found = json.loads((folder / OUT).read_text(encoding="utf-8"))
        precision = "bf16-mixed" if "--bf16" in recipe.command(seed) else "32-true"
    else:
        seconds = start([*recipe.command(seed), f"hydra.run.dir={folder}"])
        found = of_run(folder)
        precision = found.pop("precision")
    return {
        "recipe": recipe.name,
        "seed": seed,
        "rival": recipe.rival,
        "digest": recipe.digest,
        "precision": precision,
        "seconds": round(seconds, 3),
        **found,
        "load": round(os.getloadavg()[0], 2),
        "git": git_revision(),
    }


def of_run(folder: Path) -> dict[str, Any]:
    """Return what a finished run folder says; the validation accuracy is that of the epoch that was tested.

    Seconds of the curve are those of training. What it needs besides its epochs counts as before the first one.
    """
    result, accuracies = runs.read_result(folder), runs.curve(folder, "val/acc")
    epochs = runs.curve(folder, "train/epoch_s")
    besides = result["timings"]["fit_s"] - sum(epochs.values())
    seconds = {epoch: besides + total for epoch, total in zip(epochs, accumulate(epochs.values()), strict=True)}
    return {
        "fit_s": result["timings"]["fit_s"],
        "test_s": result["timings"].get("test_s", 0.0),
        "epochs": result["epochs"],
        "parameters": result["parameters"],
        "precision": result["devices"].rpartition(" ")[2],
        "tta": result.get("tta"),
        "val": result["metrics"]["val/acc"],
        "test": result["metrics"].get("test/acc"),
        "curve": [[round(seconds[epoch], 3), value] for epoch, value in accuracies.items() if epoch in seconds],
    }


def start(command: Sequence[str]) -> float:
    """Run `python COMMAND` and return its seconds; raise RunError with its last line if it fails."""
    end_with_me = partial(die_with_parent, signal.SIGTERM, os.getpid())
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, preexec_fn=end_with_me
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")] or done.stderr.splitlines()
        raise RunError(f"python {' '.join(command)} ended with status {done.returncode}: {(said or [''])[-1]}")
    return seconds


def fresh(folder: Path) -> Path:
    """Remove a folder of an earlier attempt; return its path."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))
