"""A run on the user's own images: trained, resumed, evaluated, and used on further image files."""

import csv
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import lossfit
from lossfit.config import build
from lossfit.errors import UserError
from lossfit.inference.evaluation import split
from lossfit.runs import checkpoints, names
from lossfit.training import engine
from lossfit.training.build import build_run, load_data
from tests import photos
from tests.conftest import compose

Script = Callable[..., tuple[int, str, str]]


def overrides(folder: Path, *more: str) -> list[str]:
    """The words of a command line that trains an epoch in a second."""
    own = [f"data.dir={folder}", f"data.cache_dir={folder}-cache", "data.image_size=8", "data.workers=0"]
    return ["data=folder", *own, "model=linear", "trainer=cpu", "trainer.max_epochs=1", "callbacks=checkpoint", *more]


def train(run: Path, folder: Path, *more: str) -> Path:
    words = overrides(folder, *more)
    engine.start(run, compose(*words), words)
    return run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark cats and light dogs, larger than the model's images and not square, one of them unreadable."""
    folder = photos.make(tmp_path_factory.mktemp("data") / "photos", {"cat": 20, "dog": 20})
    for name, level in (("cat", 0.4), ("dog", 1.0)):
        for i, file in enumerate(sorted((folder / name).iterdir())):
            photos.image(i, 24).resize((30, 20)).point(lambda v, level=level: int(v * level)).save(file)
    (folder / "dog" / "19.png").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on these images that tests may not change."""
    return train(tmp_path_factory.mktemp("trained") / "run", images, "data.skip_unreadable=true", "data.resize=stretch")


def test_a_run_folder_says_which_image_was_where(trained: Path) -> None:
    rows = list(csv.DictReader((trained / names.SPLITS).open()))
    assert len(rows) == 39
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert [row["path"] for row in csv.DictReader((trained / names.SKIPPED).open())] == ["dog/19.png"]
    saved = checkpoints.read(trained / names.BEST).description
    assert saved.class_names == ["cat", "dog"]
    assert len(saved.mean) == 3
    assert all(0.1 < value < 0.6 for value in (*saved.mean, *saved.std)), "measured"


def test_predicting_a_file_sees_what_training_saw(trained: Path, images: Path) -> None:
    model = lossfit.load(trained)
    data = build(
        compose(*overrides(images, "data.skip_unreadable=true", "data.resize=stretch"))["data"], "data", seed=1
    )
    data.setup()
    rows = csv.DictReader((trained / names.SPLITS).open())
    paths = [images / row["path"] for row in rows if row["split"] == "test"]
    assert torch.equal(model.pixels(paths), data.splits["test"][0])
    assert torch.equal(model.pixels([Image.open(path) for path in paths]), data.splits["test"][0])


def test_grey_images_are_not_inverted_as_those_of_fashion_mnist_are(images: Path, tmp_path: Path) -> None:
    model = lossfit.load(train(tmp_path / "run", images, "data.skip_unreadable=true", "data.channels=grey"))
    Image.new("L", (8, 8), 250).save(tmp_path / "light.png")
    assert model.pixels(tmp_path / "light.png").unique().tolist() == [250]
    assert model.pixels(tmp_path / "light.png", invert=True).unique().tolist() == [5]


def test_evaluation_reads_the_same_test_images_and_writes_nothing(trained: Path, images: Path, tmp_path: Path) -> None:
    model = lossfit.load(trained)
    cache = Path(f"{images}-cache")
    shutil.rmtree(cache, ignore_errors=True)
    there, target = split(model, "test")
    moved = tmp_path / "moved"
    shutil.copytree(images, moved)
    again, _ = split(model, "test", moved)
    index = torch.arange(len(target))
    assert torch.equal(there[index], again[index])
    assert torch.equal(target, torch.tensor([0, 0, 1, 1]))
    assert not cache.exists()


def test_evaluation_refuses_images_that_a_run_may_have_been_trained_on(
    images: Path, tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(images, folder)
    run = train(tmp_path / "run", folder, "data.skip_unreadable=true", "data.fold=0")
    trained_on = {row["path"] for row in csv.DictReader((run / names.SPLITS).open()) if row["split"] == "train"}
    model = lossfit.load(run)
    there, _ = split(model, "test", run=run)
    photos.image(99).save(folder / "cat" / "00a.png")
    photos.image(98).save(folder / "dog" / "00a.png")
    data = build(model.config["data"], "data", seed=1)
    data.setup()
    rows = csv.DictReader(data.run_files[names.SPLITS].splitlines())
    assert trained_on & {row["path"] for row in rows if row["split"] == "test"}, "what must not be measured on"
    words = (
        r"began with: 2 images added \(cat/00a\.png, dog/00a\.png\); .* in another split .*, so that the model may "
        r"have been trained on some of the test split: put them back, or name .* --data FOLDER"
    )
    for name in ("evaluate", "export"):
        status, _, said = script(name, run)
        assert status == 2
        assert re.search(words, said)
        assert len(said.splitlines()) == 2
    assert not list(run.glob("evaluation*"))
    split(model, "test", folder, run)
    assert "may have been trained on some of the test split" in caplog.text, "the user's word"
    for new in folder.glob("*/00a.png"):
        new.unlink()
    caplog.clear()
    again, _ = split(model, "test", folder, run)
    index = torch.arange(len(there))
    assert torch.equal(there[index], again[index])
    assert "trained" not in caplog.text


def test_a_config_from_elsewhere_may_name_classes_but_no_objects(trained: Path) -> None:
    model = lossfit.load(trained)
    model.config["data"]["classes"] = ["cat", "dog"]
    assert len(split(model, "test")[1]) == 4
    for wrong in ([{"_target_": "os.system"}], {"_target_": "os.system"}, [["cat"]]):
        model.config["data"]["classes"] = wrong
        with pytest.raises(UserError, match="which is not a plain value"):
            split(model, "test")


def test_a_resumed_run_refuses_changed_images(trained: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(images, folder)
    run = train(tmp_path / "run", folder, "data.skip_unreadable=true", "callbacks=[checkpoint]")
    before = (run / names.SPLITS).read_bytes()
    photos.image(99).save(folder / "cat" / "new.png")
    words = ["trainer.max_epochs=2"]
    with pytest.raises(UserError, match=r"not those that this run began with: 1 image added \(cat/new\.png\)"):
        engine.resume(run, compose(*overrides(folder), *words), words)
    assert (run / names.SPLITS).read_bytes() == before
    (folder / "cat" / "new.png").unlink()
    engine.resume(run, compose(*overrides(folder), *words), words)


@pytest.mark.parametrize("store", ["auto", "mapped", "decoded"])
def test_every_store_trains_to_the_same_bits(store: str, images: Path, tmp_path: Path) -> None:
    more = ["data.skip_unreadable=true", "data.batch_size=8"]
    runs = [train(tmp_path / name, images, *more, f"data.store={name}") for name in ("memory", store)]
    weights: list[Any] = [checkpoints.read(run / names.LAST).state_dict for run in runs]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_ranks_share_one_map(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = ["data.skip_unreadable=true", f"data.cache_dir={tmp_path / 'cache'}", "trainer=ddp_sim"]
    with caplog.at_level(logging.INFO):
        load_data(compose(*overrides(images), *words), seed=1)
    assert any("read from a map" in line and "2 processes share them" in line for line in caplog.messages)
    assert len(list((tmp_path / "cache").glob("photos-*"))) == 1


def test_augmented_images_of_values_are_told(images: Path, tmp_path: Path) -> None:
    rows = [("file", "angle [degrees]", "x", "y", "size"), *((f"{i:02}.png", i, i, i, i) for i in range(30))]
    table = [f"data.dir={photos.table(tmp_path / 'photos', rows)}", "data.table=labels.csv", "loss=mse"]

    def notes(*more: str) -> list[str]:
        return build_run(compose(*overrides(images, *more), "trainer.max_epochs=99"), tmp_path / "run").notes

    assert notes(*table, "data/augment=rand") == [
        "Warning: data/augment=rand mirrors, shifts or crops training images: right only if that does not change "
        "angle, x, y, size; data/augment=none turns it off"
    ]
    assert notes(*table, "data/augment=none") == []
    assert notes("data.skip_unreadable=true") == []


def test_a_table_of_values_is_trained_and_a_command_line_is_enough(
    images: Path, tmp_path: Path, train_py: Callable[..., Any]
) -> None:
    rows = [("file", "light [lux]"), *((f"{i:02}.png", i * 10) for i in range(30))]
    folder = photos.table(tmp_path / "photos", rows)
    done = train_py(*overrides(folder, "data.table=labels.csv", "loss=mse"))
    assert done.returncode == 0, done.stderr
    assert "24 train, 3 val, 3 test" in done.stdout + done.stderr
    assert "data/augment=photo mirrors, shifts or crops" in done.stdout + done.stderr
    refused = train_py(*overrides(folder), f"hydra.run.dir={tmp_path / 'other'}")
    assert refused.returncode == 2
    assert "data.dir=" in refused.stderr
    assert "data.table=labels.csv" in refused.stderr
    assert not (tmp_path / "other").exists()
