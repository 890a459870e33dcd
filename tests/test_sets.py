"""The sets beside Fashion-MNIST by its ten classes: some of its classes, its angles, digits, torchvision's sets."""

import gzip
import hashlib
import io
import pickle
import struct
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

import lossfit
from lossfit.config import build, call, check
from lossfit.data import (
    Augment,
    DigitsDataModule,
    FashionMNISTDataModule,
    ImageDataModule,
    TorchvisionDataModule,
)
from lossfit.data.dataset_files import DataError
from lossfit.data.mix import Mixup
from lossfit.data.rotation import rotate
from lossfit.data.torchvision_sets import SETS
from lossfit.errors import ConfigError, UserError
from lossfit.inference import evaluation
from lossfit.option_files import CONF
from lossfit.tasks.regression import Regression
from tests.conftest import Command, compose, fit
from tests.conftest import sample as read_sample

PULLOVER, SHIRT = 2, 6  # in the file


def made(option: str, **options: object) -> Any:
    """The data module of an option of conf/data, set up."""
    module: ImageDataModule = build({**compose(f"data={option}")["data"], **options}, "data")
    module.setup()
    return module


OPTIONS = sorted(path.stem for path in (CONF / "data").glob("*.yaml") if not path.stem.startswith("sample"))
AUGMENTATIONS = sorted(path.stem for path in (CONF / "data" / "augment").glob("*.yaml"))
NEEDS = {"folder": ["data.dir=FOLDER"], "stream": ["data.url=FOLDER"]}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_data_option_takes_each_augmentation_or_says_in_a_line_which_it_takes(option: str) -> None:
    for augment in AUGMENTATIONS:
        config = compose(f"data={option}", f"data/augment={augment}", *NEEDS.get(option, []))
        if option.endswith("rotation") and augment not in ("none", "shift"):
            with pytest.raises(ConfigError, match=r"^data\.augment must be .*: use data/augment=none or .*=shift$"):
                build(config["data"], "data", seed=0)
            continue
        check(config)
        module = build(config["data"], "data", seed=0)
        assert (module.augment is None) == (augment == "none")


# Some of the classes


def test_two_classes_in_the_given_order_are_a_binary_set() -> None:
    module = made("sample", classes=["Shirt", "Pullover"], val_size=20)
    images, labels = read_sample(train=True)
    train, val, test = (module.splits[split] for split in ("train", "val", "test"))
    assert module.task.names == ("Shirt", "Pullover")
    assert (module.class_counts, torch.bincount(val[1]).tolist()) == ([50, 50], [10, 10])
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    in_file = [label_of[image.numpy().tobytes()] for image in torch.cat([train[0], val[0]])]
    assert in_file == [[SHIRT, PULLOVER][k] for k in torch.cat([train[1], val[1]])]
    images, labels = read_sample()
    of_both = (labels == SHIRT) | (labels == PULLOVER)
    assert test[0].equal(images[of_both])
    assert test[1].equal((labels[of_both] == PULLOVER).long())


def test_all_classes_by_name_are_the_whole_set() -> None:
    whole, named = made("sample"), made("sample", classes=list(FashionMNISTDataModule.class_names))
    for split in whole.splits:
        assert all(a.equal(b) for a, b in zip(whole.splits[split], named.splits[split], strict=True))


def test_two_classes_of_the_real_set_still_have_five_thousand_validation_images(fashion_mnist: str) -> None:
    module = FashionMNISTDataModule(dir=fashion_mnist, classes=["Shirt", "Pullover"])
    module.setup()
    counts = {split: torch.bincount(labels).tolist() for split, (_, labels) in module.splits.items()}
    assert counts == {"train": [3500] * 2, "val": [2500] * 2, "test": [1000] * 2}


def test_changes_of_some_classes_are_listed_by_their_position_in_the_file() -> None:
    names, numbers = ["Shirt", "Pullover", "Bag"], [SHIRT, PULLOVER, 8]
    options = {"classes": names, "val_size": 30, "label_noise": 0.2, "outliers": 0.1, "imbalance": 2}
    module = made("sample", **options)
    images, labels = read_sample(train=True)
    log = module.corruption_log
    assert len(log["wrong_labels"]) == round(0.2 * len(module.splits["train"][1]))
    for position, given, used in log["wrong_labels"]:
        assert int(labels[position]) == numbers[given] != numbers[used]
    assert len(log["train_indices"]) == len(module.splits["train"][1])
    for position, image in zip(log["train_indices"], module.splits["train"][0], strict=True):
        assert image.equal(images[position]) == (position not in log["outlier_indices"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["Shirt", "Pulover"]}, r"data\.classes must be .*, got 'Pulover' \(did you mean 'Pullover'\?\)"),
        ({"classes": ["Shirt", "Bag", "Shirt"]}, r"data\.classes must be different classes, got 'Shirt' 2 times"),
        ({"classes": ["Shirt"]}, r"data\.classes must be null or at least 2 classes, got \['Shirt'\]"),
        ({"classes": []}, r"data\.classes must be null or at least 2 classes, got \[\]"),
        ({"classes": ["Shirt", "Bag"], "val_size": 120}, r"data\.val_size must be less than the 120 .*, got 120"),
        ({"classes": ["Shirt", "Bag"], "subset": 101}, r"data\.subset must be at most the 20 .*, got 101"),
    ],
)
def test_classes_that_cannot_be_taken_are_refused_in_a_line(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        fit(tmp_path / "run", *(f"data.{k}={v}" for k, v in ({"val_size": 100} | options).items()))
    assert not (tmp_path / "run").exists()


def test_classes_named_by_numbers_can_be_typed() -> None:
    config = compose("data=digits", "data.classes=[3,8]")
    check(config)
    module = build(config["data"], "data")
    module.setup()
    assert module.task.names == ("3", "8")
    with pytest.raises(ConfigError, match=r"data\.classes must be a list of texts or whole numbers or null, got 3"):
        check(compose("data=digits", "data.classes=3"))


def test_a_run_of_two_classes_is_loaded_and_evaluated(tmp_path: Path) -> None:
    fit(tmp_path / "run", "data.classes=[Shirt,Bag]", "data.val_size=20", "model=linear")
    model = lossfit.load(tmp_path / "run")
    assert list(model.names) == ["Shirt", "Bag"]
    images, labels = evaluation.split(model, "test")
    assert torch.bincount(labels).tolist() == [20, 20]
    assert model.outputs(images).shape == (40, 2)


@pytest.mark.parametrize("name", ["digits", "folder", "fashion_mnist", "fashion_mnist_rotation", "torchvision"])
def test_only_data_in_a_folder_can_be_elsewhere(name: str) -> None:
    kind = type(build({**compose(f"data={name}")["data"], **({"dir": "x"} if name == "folder" else {})}, "data"))
    assert "dir" not in kind.from_elsewhere({"seed": 1}, None)
    if name == "digits":
        with pytest.raises(UserError, match=r"^--data x: the data of this run \(DigitsDataModule\) are in no folder"):
            kind.from_elsewhere({"seed": 1}, "x")
    else:
        assert kind.from_elsewhere({"dir": "old"}, "x")["dir"] == "x"


# Angles


def test_images_are_turned_as_by_torchvision() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in [(600, 1, 28, 28), (20, 3, 20, 31)]:  # more images than are turned at once; RGB, no square
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        degrees = 360 * torch.rand(len(images), generator=generator) - 180
        turned = rotate(images, degrees)
        for image, angle, ours in zip(images, degrees.tolist(), turned, strict=True):
            theirs = v2.rotate(image, angle, InterpolationMode.BILINEAR)
            assert (ours.int() - theirs.int()).abs().max() <= 1


def test_a_positive_angle_is_counter_clockwise() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 7] = 255  # to the right of the centre
    assert rotate(image, torch.tensor([90.0]))[0, 0].nonzero().tolist() == [[1, 4]]  # above it


def test_the_target_is_the_angle_that_the_image_is_turned_by() -> None:
    module, upright = made("sample_rotation"), made("sample")
    for split, (images, target) in module.splits.items():
        assert (images.dtype, target.dtype, target.shape) == (torch.uint8, torch.float32, (len(images), 1))
        assert target.abs().max() <= 45
        for image, angle, before in list(zip(images, target, upright.splits[split][0], strict=True))[:50]:
            theirs = v2.rotate(before, float(angle), InterpolationMode.BILINEAR)
            assert (image.int() - theirs.int()).abs().max() <= 1


def test_angles_are_uniform_and_depend_on_split_seed_file_and_position_alone() -> None:
    first = made("sample_rotation")
    targets = {split: target for split, (_, target) in first.splits.items()}
    shares = torch.histc(torch.cat([targets["train"], targets["val"]]), bins=3, min=-45, max=45) / 600
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)
    assert not set(targets["train"].flatten().tolist()) & set(targets["test"].flatten().tolist())
    again = made("sample_rotation", seed=5, batch_size=7)
    assert all(again.splits[split][1].equal(target) for split, target in targets.items())
    part = made("sample_rotation", subset=50, val_size=200)
    assert set(part.splits["train"][1].flatten().tolist()) < set(torch.cat([*targets.values()]).flatten().tolist())
    assert part.splits["test"][1].equal(targets["test"])
    assert not made("sample_rotation", split_seed=1).splits["test"][1].equal(targets["test"])


def test_the_task_is_one_value_with_the_median_and_robust_deviation_of_the_training_targets() -> None:
    module = made("sample_rotation")
    assert isinstance(module.task, Regression)
    assert (module.task.name, type(module).task_name()) == ("regression", "regression")
    assert (module.task.names, module.task.units) == (("angle",), ("degrees",))
    target = module.splits["train"][1]
    low, center, high = np.quantile(target.numpy(), (0.25, 0.5, 0.75), method="nearest")
    assert module.task.center == pytest.approx([center])
    assert module.task.scale == pytest.approx([(high - low) / 1.349])
    assert module.task.encode(torch.tensor([[center], [high]])).flatten().tolist() == pytest.approx(
        [0, 1.349 * (high - center) / (high - low)]
    )
    images, batch = next(iter(module.train_dataloader()))
    assert (images.shape, batch.shape) == ((128, 1, 28, 28), (128, 1))
    assert batch.abs().max() > 10, "batches have degrees"
    pixels = module.splits["train"][0] / 255
    assert (module.mean[0], module.std[0]) == pytest.approx((float(pixels.mean()), float(pixels.std())), abs=1e-4)


def test_one_training_image_has_a_finite_target() -> None:
    module = made("sample_rotation", subset=1)
    assert module.task.encode(module.splits["train"][1]).tolist() == [[0]]


def test_outliers_are_wrong_training_targets_and_are_written_down() -> None:
    clean, module = made("sample_rotation"), made("sample_rotation", outliers=0.1)
    for split in ("val", "test"):
        assert module.splits[split][1].equal(clean.splits[split][1])
    before, after = (m.splits["train"][1].flatten() for m in (clean, module))
    assert module.splits["train"][0].equal(clean.splits["train"][0])
    changed = (before != after).nonzero().squeeze(1)
    assert len(changed) == 50
    log, positions = module.corruption_log, torch.tensor(module.corruption_log["train_indices"])
    listed = [[int(positions[i]), float(before[i]), float(after[i])] for i in changed]
    assert log["wrong_targets"] == listed
    assert after[changed].abs().max() <= 1000
    assert after[changed].abs().median() > 300
    assert module.task.scale[0] < 1.3 * clean.task.scale[0]
    assert after.std() > 5 * before.std()
    assert clean.corruption_log == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": Mixup()}, "data.mix must be none, since it mixes classes, got Mixup: set data/mix=none"),
        ({"augment": Augment(flip=0.5)}, "data.augment must be null or an Augment with flip=0, got Augment, which"),
        ({"outliers": 1.5}, "data.outliers must be from 0 to 1, got 1.5"),
        ({"val_size": 600}, "data.val_size must be less than the 600 training samples, got 600"),
    ],
)
def test_what_makes_no_sense_for_angles_is_refused(options: dict[str, Any], message: str) -> None:
    node = {**compose("data=sample_rotation")["data"], **options}
    with pytest.raises(ConfigError, match=message):
        call(build(node, "data").setup, "data")


def test_label_noise_is_no_option_of_angles() -> None:
    config = compose("data=sample_rotation", "+data.label_noise=0.1")
    with pytest.raises(ConfigError, match=r"data\.label_noise: lossfit.* has no such argument"):
        check(config)


# Digits


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    module, theirs = DigitsDataModule(), load_digits()
    module.setup()
    assert {split: len(labels) for split, (_, labels) in module.splits.items()} == {
        "train": 1200, "val": 237, "test": 360,
    }  # fmt: skip
    images, labels = (torch.cat(parts) for parts in zip(module.read(True), module.read(False), strict=True))
    assert labels.tolist() == theirs.target.tolist()
    assert (images.min(), images.max()) == (0, 255)
    assert (images[:, 0] - torch.from_numpy(theirs.images) * 255 / 16).abs().max() <= 0.5
    pixels = module.read(train=True)[0] / 255
    assert (module.mean[0], module.std[0]) == pytest.approx((float(pixels.mean()), float(pixels.std())), abs=1e-4)


def test_digits_are_learned(tmp_path: Path) -> None:
    metrics = fit(tmp_path / "run", "data=digits", "model=linear", "trainer.max_epochs=10", "optimizer.lr=1e-2")
    assert metrics["test/acc"] > 0.85, "logistic regression of scikit-learn has 0.90"


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"^data=digits reads a file of scikit-learn: pip install scikit-learn$"):
        DigitsDataModule().setup()


# torchvision

SIZES = {True: 20, False: 10}
CLASSES = {"EMNIST": 47, "CIFAR100": 100}  # the others have 10


def pixels(name: str, train: bool) -> tuple[Tensor, Tensor]:
    """Random images as the data module must return them, and their labels."""
    generator = torch.Generator().manual_seed(int(train))
    shape = (3, 32, 32) if name in ("CIFAR10", "CIFAR100", "SVHN") else (1, 28, 28)
    images = torch.randint(0, 256, (SIZES[train], *shape), dtype=torch.uint8, generator=generator)
    return images, torch.arange(SIZES[train]) * 7 % CLASSES.get(name, 10)


def idx(values: Tensor) -> bytes:
    """IDX, as the files of MNIST."""
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape) + values.numpy().tobytes()


def contents(name: str) -> dict[str, bytes]:
    """The files of a small data set in the format of the real one, unpacked, by their paths."""
    files = {}
    for train in (True, False):
        images, labels = pixels(name, train)
        bytes_ = labels.to(torch.uint8)
        if name in ("MNIST", "KMNIST", "EMNIST"):
            part = "train" if train else ("test" if name == "EMNIST" else "t10k")
            prefix = f"{name}/raw/" + (f"emnist-balanced-{part}" if name == "EMNIST" else part)
            files[f"{prefix}-images-idx3-ubyte"] = idx(images[:, 0].mT if name == "EMNIST" else images[:, 0])
            files[f"{prefix}-labels-idx1-ubyte"] = idx(bytes_)
        elif name == "SVHN":
            from scipy.io import savemat

            stream = io.BytesIO()
            y = torch.where(bytes_ == 0, 10, bytes_)  # the file's label of the digit 0
            savemat(stream, {"X": images.permute(2, 3, 1, 0).numpy(), "y": y[:, None].numpy()})
            files[f"{'train' if train else 'test'}_32x32.mat"] = stream.getvalue()
        else:
            hundred = name == "CIFAR100"
            key, folder = ("fine_labels", "cifar-100-python") if hundred else ("labels", "cifar-10-batches-py")
            file = ("train" if train else "test") if hundred else ("data_batch_1" if train else "test_batch")
            entry = {"data": images.flatten(1).numpy(), key: labels.tolist()}
            files[f"{folder}/{file}"] = pickle.dumps(entry)
            names = [f"class {k}" for k in range(CLASSES.get(name, 10))]
            meta = {"fine_label_names" if hundred else "label_names": names}
            files[f"{folder}/{'meta' if hundred else 'batches.meta'}"] = pickle.dumps(meta)
    return files


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], dict[str, bytes]]:
    """Make torchvision expect the checksums of the small files of a set, and refuse the network; return the files."""

    def no_network(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)

    def expect(name: str) -> dict[str, bytes]:
        files = contents(name)
        known = {Path(path).name: md5(content) for path, content in files.items()}
        kind = getattr(datasets, name)
        if name == "SVHN":
            lists = {part: [*kind.split_list[part][:2], known[f"{part}_32x32.mat"]] for part in ("train", "test")}
            monkeypatch.setattr(kind, "split_list", lists)
        elif name.startswith("CIFAR"):
            for part in ("train_list", "test_list"):
                monkeypatch.setattr(kind, part, [[f, known[f]] for f, _ in getattr(kind, part) if f in known])
            monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": known[kind.meta["filename"]]})
        return files

    return expect


def put(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_torchvision_is_read(name: str, small: Callable[[str], dict[str, bytes]], tmp_path: Path) -> None:
    put(small(name), tmp_path)
    module = TorchvisionDataModule(name, str(tmp_path), val_size=5)
    module.prepare_data()
    module.setup()
    for train in (True, False):
        images, labels = module.read(train)
        expected = pixels(name, train)
        assert images.equal(expected[0])
        assert labels.equal(expected[1])
    assert {split: len(labels) for split, (_, labels) in module.splits.items()} == {"train": 15, "val": 5, "test": 10}
    train_pixels = module.splits["train"][0].transpose(0, 1).flatten(1) / 255
    assert module.mean == pytest.approx(train_pixels.mean(1).tolist(), abs=1e-5)
    assert module.std == pytest.approx(train_pixels.std(1, correction=0).tolist(), abs=1e-5)
    assert next(iter(module.train_dataloader()))[0].shape == (15, *expected[0].shape[1:])
    names = {"KMNIST": "o", "EMNIST": "0", "CIFAR10": "class 0", "CIFAR100": "class 0"}
    assert (len(module.task.names), module.task.names[0]) == (CLASSES.get(name, 10), names.get(name, "0"))


PLACES = {
    "MNIST": ("train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, .*", "/MNIST/raw"),
    "EMNIST": ("gzip.zip", "/EMNIST/raw"),
    "CIFAR10": ("cifar-10-python.tar.gz", ""),
    "SVHN": ("train_32x32.mat, test_32x32.mat", ""),
}


@pytest.mark.parametrize("name", PLACES)
def test_without_network_a_line_names_the_files_and_their_place(
    name: str, small: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    small(name)
    module = TorchvisionDataModule(name, str(tmp_path / "sets"))
    files, folder = PLACES[name]
    remedy = f"fetch {files} where there is a network, put (it|them) into {tmp_path}/sets{folder} and start the run"
    with pytest.raises(DataError, match=f"^the data set {name} .* could not be downloaded .*: {remedy} again$"):
        module.prepare_data()
    with pytest.raises(DataError, match=f"^the data set {name} .* is not there, or damaged .*: {remedy} again$"):
        module.setup()


def archive(name: str, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Pack the files of a set as its publisher does, and make torchvision expect the checksums."""
    kind, stream = getattr(datasets, name), io.BytesIO()
    if name == "CIFAR10":
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for path, content in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        monkeypatch.setattr(kind, "tgz_md5", md5(stream.getvalue()))
        return {kind.filename: stream.getvalue()}
    packed = {f"{path}.gz": gzip.compress(content) for path, content in files.items()}
    if name == "MNIST":
        monkeypatch.setattr(kind, "resources", [(Path(path).name, md5(c)) for path, c in packed.items()])
        return packed
    with zipfile.ZipFile(stream, "w") as file:
        for path, content in packed.items():
            file.writestr(f"gzip/{Path(path).name}", content)
    monkeypatch.setattr(kind, "md5", md5(stream.getvalue()))
    return {"EMNIST/raw/gzip.zip": stream.getvalue()}


@pytest.mark.parametrize("name", ["MNIST", "EMNIST", "CIFAR10"])
def test_files_put_where_the_line_says_are_unpacked_without_network(
    name: str, small: Callable[[str], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(archive(name, small(name), monkeypatch), tmp_path)
    module = TorchvisionDataModule(name, str(tmp_path), val_size=5)
    module.prepare_data()
    module.setup()
    assert module.splits["test"][0].equal(pixels(name, False)[0])


def test_only_prepare_data_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(DataError, match="is not there"):
        TorchvisionDataModule("MNIST", str(tmp_path)).setup()
    assert not asked
    assert not list(tmp_path.iterdir())


def test_labels_of_another_set_are_refused(small: Callable[[str], dict[str, bytes]], tmp_path: Path) -> None:
    files = small("MNIST")
    put(files | {"MNIST/raw/train-labels-idx1-ubyte": idx(torch.full((20,), 10, dtype=torch.uint8))}, tmp_path)
    with pytest.raises(DataError, match=r"MNIST .* is damaged \(20 images, 20 labels up to 10, 10 classes\)"):
        TorchvisionDataModule("MNIST", str(tmp_path), val_size=5).setup()


def test_svhn_without_scipy_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    module = TorchvisionDataModule("SVHN", str(tmp_path))
    module.prepare_data()
    with pytest.raises(DataError, match=r"^data\.name=SVHN needs the package scipy: pip install scipy$"):
        module.setup()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar-10", "got 'cifar-10' (did you mean 'CIFAR10'?)"),
        ("ImageNet", "got 'ImageNet' (known: CIFAR10, CIFAR100, EMNIST, KMNIST, MNIST, SVHN)"),
    ],
)
def test_a_name_that_is_not_supported_is_refused(name: str, message: str, command: Command) -> None:
    status, said = command("train.py", "data=torchvision", f"data.name={name}")
    assert status == 2
    assert f"data.name must be a supported data set, {message}" in said
