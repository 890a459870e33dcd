"""Exact resuming of images that are read from files, and of values as targets; jobs that share one folder of images."""

import contextlib
import csv
import functools
import os
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lossfit import compare, runs
from lossfit.runs import checkpoints, names
from lossfit.system import locks
from lossfit.training import engine
from lossfit.training.build import build_run
from tests import forks, photos
from tests.conftest import ROOT, compose
from tests.test_kills import BESIDE, bits, content
from tests.test_resume import assert_same, last

linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc, and workers that the kernel ends")

LOSSES = {"classes": "cross_entropy", "sets": "bce", "values": "huber", "rotation": "huber"}
SHORT = [
    "optimizer=adamw",
    "scheduler=one_cycle",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks=[checkpoint]",
    "logger=[csv]",
]
CNN = ["model=cnn", "model.widths=[4]", "model.strides=[2]"]  # with dropout, which draws from the global random state
STEPS = 7  # in an epoch
KILLED_AT = 12  # the last checkpoint is then of step 10, since there is one after each epoch and after 3 more steps
IMAGES = {"cat": 26, "dog": 25}  # 41 for training: the last of the 7 batches has 5, or for two ranks 3 and 2


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of images, and tables of all: in values.csv two values, of which one is the brightness, in sets.csv
    a set of classes by the brightness.
    """
    folder = photos.make(tmp_path_factory.mktemp("data") / "photos", IMAGES)
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))]
    for i, path in enumerate(paths):
        photos.image(i, 16).point(lambda v, level=i % 7: v * (level + 1) // 7).save(folder / path)
    values = [(path, i % 7, (i * i) % 50 / 10) for i, path in enumerate(paths)]
    photos.table(folder, [("path", "light [lux]", "size"), *values], "values.csv")
    colours = ["", "", "blue", "blue", "blue;green", "green;red", "red"]
    sets = [(path, colours[i % 7]) for i, path in enumerate(paths)]
    return photos.table(folder, [("path", "colours"), *sets], "sets.csv")


def folder_words(images: Path, *more: str) -> list[str]:
    """The words of a command line that trains on the images of a folder."""
    own = [f"data.dir={images}", f"data.cache_dir={images}-cache", "data.image_size=16", "data.batch_size=6"]
    return ["data=folder", *own, *SHORT, *more]


def words(kind: str, images: Path, ranks: int) -> list[str]:
    """The words of a run of 7 steps an epoch on one rank or two, on a folder, one of its tables, or rotated images."""
    if kind == "rotation":
        data = ["data=sample_rotation", "data/augment=small", "data.augment.flip=0", "data.batch_size=72", *SHORT]
    else:
        table = [f"data.table={kind}.csv"] if kind != "classes" else []
        data = folder_words(images, "data.workers=0", *table)
    loss = [f"loss={LOSSES[kind]}"]
    two = [f"data.batch_size={36 if kind == 'rotation' else 3}", "trainer=ddp_sim"] if ranks == 2 else []
    return [*data, *CNN, *loss, *two, "callbacks.last_checkpoint.every_n_steps=3"]


def trained(folder: Path, given: Sequence[str], ranks: int = 1) -> Path:
    """Train a run that nothing stops."""
    runs.create(folder, compose(*given), given)
    return completed(folder, ranks)


def completed(folder: Path, ranks: int = 1) -> Path:
    """Train or resume a run to its end."""
    done = forks.run(["-m", "lossfit", str(folder)], ranks=ranks - 1)
    assert done.returncode == 0, done.stderr
    return folder


@dataclass
class Held:
    """A program that waits at a moment. Linux says when its processes have ended."""

    process: forks.Forked
    out: Path

    @classmethod
    def started(cls, arguments: Sequence[str], folder: Path, out: Path, ranks: int = 1, **moment: int) -> "Held":
        """Start a program, and wait until it is at the moment: see fork_server.py."""
        for name in ("here", "go"):
            os.mkfifo(f"{out}.{name}")
        here = os.open(f"{out}.here", os.O_RDONLY | os.O_NONBLOCK)
        with Path(f"{out}.said").open("w") as said:
            moments = {"folder": str(folder), "out": str(out), "hold": moment}
            process = forks.Forked(arguments, moments=moments, ranks=ranks - 1, stdout=said, stderr=said)
        ready, _, _ = select.select([here, process.connection], [], [], 120)
        os.close(here)
        held = cls(process, out)
        assert ready == [here], held.said
        return held

    @property
    def said(self) -> str:
        """What it has printed."""
        return Path(f"{self.out}.said").read_text()

    def go(self) -> int:
        """Let it go on to its end; return its exit status."""
        Path(f"{self.out}.go").open("w").close()
        return self.process.wait(timeout=120)

    def kill(self, ranks: int = 1, workers: int = 0) -> None:
        """Send it SIGKILL. Its other rank and the workers of each rank must be there, and end with it."""
        found = children(self.process.pid)
        if ranks == 2:
            found += children(max(found, key=lambda pid: len(children(pid))))
        for_workers = workers + 1 if workers else 0  # with Python's own resource tracker
        assert len(found) == ranks - 1 + ranks * for_workers
        with ending(found):
            self.process.kill()
            assert self.process.wait(timeout=60) == -signal.SIGKILL


@contextlib.contextmanager
def ending(processes: Sequence[int]) -> Iterator[None]:
    """Check that processes which run now end by the end of the block, or soon after."""
    ends = [os.pidfd_open(pid) for pid in processes]
    yield
    for end in ends:
        assert select.select([end], [], [], 60)[0], "a process still runs"
        os.close(end)


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found


# --- the same bits ---


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Return the run of this kind that nothing stops, with pixels in memory; it is trained once."""

    @functools.cache
    def run(kind: str, ranks: int) -> Path:
        store = ["data.store=memory"] if kind != "rotation" else []
        return trained(tmp_path_factory.mktemp("undisturbed") / "run", [*words(kind, images, ranks), *store], ranks)

    return run


@linux
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("kind", "store", "workers"),
    [
        ("classes", "memory", 0),
        ("classes", "mapped", 2),
        ("classes", "decoded", 0),
        ("classes", "decoded", 2),
        ("values", "decoded", 2),
        ("sets", "mapped", 0),
        ("rotation", None, 0),
    ],
)
def test_a_run_killed_within_an_epoch_ends_in_the_bits_of_one_in_memory_that_was_not(
    kind: str,
    store: str | None,
    workers: int,
    ranks: int,
    images: Path,
    undisturbed: Callable[[str, int], Path],
    tmp_path: Path,
) -> None:
    given = words(kind, images, ranks)
    if store:
        given += [f"data.store={store}", f"data.workers={workers}", f"data.cache_dir={tmp_path}/cache"]
    folder = runs.create(tmp_path / "run", compose(*given), given)
    held = Held.started(["-m", "lossfit", str(folder)], folder, tmp_path / "held", ranks, step=2 * KILLED_AT)
    held.kill(ranks, workers if store == "decoded" else 0)
    state = last(folder)
    assert (state["epochs"], state["global_step"]) == (1, 10), "or the test says nothing"
    if store == "mapped":
        shutil.rmtree(tmp_path / "cache")
    completed(folder, ranks)
    assert_same(bits(folder), bits(undisturbed(kind, ranks)))


@linux
def test_a_stop_signal_to_all_processes_of_a_run_stops_it_after_its_step(
    images: Path, undisturbed: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """As a scheduler sends it: also to the workers, which must go on until the step is done."""
    given = [*words("classes", images, 1), "data.store=decoded", "data.workers=2"]
    folder = runs.create(tmp_path / "run", compose(*given), given)
    held = Held.started(["-m", "lossfit", str(folder)], folder, tmp_path / "held", step=2 * KILLED_AT)
    others = children(held.process.pid)
    with ending(others):
        for pid in (*others, held.process.pid):
            os.kill(pid, signal.SIGTERM)
        assert held.go() == 130, held.said
    assert last(folder)["global_step"] == KILLED_AT
    completed(folder)
    assert_same(bits(folder), bits(undisturbed("classes", 1)))


# --- images that have changed ---


@linux
def test_a_killed_run_whose_images_or_targets_have_changed_is_refused_until_they_are_back(tmp_path: Path) -> None:
    rows = [("path", "age"), *((f"{i:02}.png", i % 9) for i in range(50))]
    folder = photos.table(tmp_path / "photos", rows, "values.csv")
    given = [*words("values", folder, 1), "data.store=decoded"]
    whole = trained(tmp_path / "whole", given)
    run = runs.create(tmp_path / "run", compose(*given), given)
    Held.started(["-m", "lossfit", str(run)], run, tmp_path / "held", step=2 * KILLED_AT).kill()
    before, table = content(run), (folder / "values.csv").read_text()
    for change, message in (
        (table.replace("03.png,3", "03.png,4"), "1 image with another target (03.png)"),
        (table.replace("49.png,4\n", ""), "1 image gone (49.png)"),
    ):
        (folder / "values.csv").write_text(change)
        done = forks.run(["train.py", f"resume={run}"])
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith(BESIDE)]
        assert "the images are not those that this run began with" in line
        assert message in line
        assert content(run) == before
    (folder / "values.csv").write_text(table)
    assert_same(bits(completed(run)), bits(whole))


# --- jobs that share a folder ---


def decodings(*said: str) -> int:
    """How often all images were decoded into a map."""
    return sum(text.count(" images into ") for text in said)


@linux
def test_a_job_waits_for_another_that_makes_the_map(images: Path, tmp_path: Path) -> None:
    """The first is held while it makes the map, until the second has found that it is at work."""
    cache = tmp_path / "cache"
    given = [*folder_words(images, "model=linear", "data.store=mapped", "data.workers=0"), f"data.cache_dir={cache}"]
    first, second = (runs.create(tmp_path / name, compose(*given), given) for name in ("first", "second"))
    held = Held.started(["-m", "lossfit", str(first)], cache, tmp_path / "held", write=8)  # the first with the lock
    (folder,) = cache.iterdir()
    assert locks.is_held(folder)
    assert not (folder / "map.json").exists()
    process = forks.Forked(["-m", "lossfit", str(second)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert any(line.startswith("waiting for another process") for line in process.stdout), "or the test says nothing"
    assert held.go() == 0, held.said
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (decodings(held.said), decodings(said)) == (1, 0)
    assert list(cache.iterdir()) == [folder]
    assert_same(bits(first), bits(second))


def test_five_folds_are_a_sweep_in_which_each_image_is_tested_once(images: Path, tmp_path: Path) -> None:
    given = folder_words(images, "model=linear", "data.store=mapped", "trainer.max_epochs=1", "data.workers=0")
    given += [f"data.cache_dir={tmp_path}/cache", "data.fold=range(0,5)", "hydra.launcher.n_jobs=2"]
    sweep = tmp_path / "sweep"
    done = forks.run(["train.py", "-m", *given, f"hydra.sweep.dir={sweep}"])
    assert done.returncode == 0, done.stderr
    assert "5 completed runs in 1 settings by val/acc" in done.stdout
    tested: Counter[str] = Counter()
    for job in range(5):
        with (sweep / str(job) / names.SPLITS).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["split"] for row in rows} == {"train", "val", "test"}
        tested.update(row["path"] for row in rows if row["split"] == "test")
    assert set(tested) == {f"{name}/{i:02}.png" for name, count in IMAGES.items() for i in range(count)}
    assert set(tested.values()) == {1}
    (setting,) = compare.leaderboard([compare.read(folder) for folder in compare.find([sweep])]).settings
    assert sorted(run.fold for run in setting.runs) == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    said = [path.read_text() for path in sweep.glob("*/console.log")]
    assert all("read from a map of decoded images" in text for text in said)
    assert decodings(*said) == 0, "it was made before the first job"


# --- the other programs, with other tasks ---

HEADLINES = {"values": ("val/mae", "MINIMIZE"), "sets": ("val/map", "MAXIMIZE")}


@pytest.fixture(params=HEADLINES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def table(kind: str, images: Path) -> list[str]:
    """The words of a short run on a table of values or of sets of classes."""
    own = [f"data.table={kind}.csv", f"loss={LOSSES[kind]}", "data.store=memory", "data.workers=0"]
    return folder_words(images, *own, "model=linear", "trainer.max_epochs=1")


def test_a_run_starts_from_the_weights_of_another_of_its_task(kind: str, table: list[str], tmp_path: Path) -> None:
    engine.start(tmp_path / "old", compose(*table), table)
    given = [*table, f"init_from={tmp_path}/old", "seed=2"]
    new = build_run(compose(*given), tmp_path / "new")
    assert_same(dict(new.module.model.state_dict()), dict(checkpoints.read(tmp_path / "old" / names.BEST).weights))
    metrics = engine.start(tmp_path / "new", compose(*given), given)
    assert HEADLINES[kind][0] in metrics


def test_a_search_is_by_the_headline_metric_of_the_task(kind: str, table: list[str], tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    sweep, (metric, direction) = tmp_path / "sweep", HEADLINES[kind]
    search = ["hydra/sweeper=optuna", "optimizer.lr=interval(0.001,0.1)", "hydra.sweeper.n_trials=2"]
    done = forks.run(["train.py", "-m", *table, *search, f"hydra.sweep.dir={sweep}"])
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{sweep}/study.db")
    assert study.direction.name == direction
    values = [runs.read_result(sweep / str(number))["metrics"][metric] for number in range(2)]
    assert [trial.value for trial in study.get_trials()] == values
    best = (min if direction == "MINIMIZE" else max)(values)
    assert f"Best: #{values.index(best)}, {metric} {best:.4f}" in done.stdout


def test_a_learning_rate_is_found(table: list[str], tmp_path: Path) -> None:
    done = forks.run([f"{ROOT}/scripts/lr_find.py", *table, "--low", "1e-4", "--steps", "60"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Suggestion  optimizer.lr=" in done.stdout
