"""Promises whose breaking raises no error: each test fails if the line of code that keeps the promise is deleted."""

import json
import math
import os
import re
import socket
from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lossfit import schedules
from lossfit.data import Augment, FashionMNISTDataModule, InMemoryDataModule
from lossfit.data.augment import erase, flip, translate
from lossfit.data.batches import Batches, Normalize, _mix
from lossfit.data.dataset_files import DataError, obtain
from lossfit.data.mix import CutMix, Mix, Mixup
from lossfit.data.sources import DebianPackage, Mirror
from lossfit.losses.cross_entropy import CrossEntropy
from lossfit.losses.custom import Custom
from lossfit.tasks.classification import Classification
from lossfit.training import engine
from lossfit.training.build import build_run
from lossfit.training.checkpoint_io import AtomicCheckpointIO
from lossfit.training.module import TrainingModule
from tests import forks
from tests.conftest import QUICK, ROOT, fit, with_costs
from tests.test_losses import COSTS, OURS, WEIGHTED, C, batch, make, mixed
from tests.test_resume import THREE, assert_same, fit_killed, last

THIRDS = ((1 + torch.arange(100.0).view(C, C) % 7) / 3 * (1 - torch.eye(C))).tolist()  # costs that bf16 would round

CODE = """
import random

import numpy as np
import torch
import torch.nn.functional as F


def mixes_classes(logits, target):  # a matrix product, which autocast computes in bf16
    return F.cross_entropy(logits @ torch.linspace(-1, 1, 100).view(10, 10).to(logits), target)


def noisy(logits, target):
    return F.cross_entropy(logits, target) * (1 + random.random() + np.random.rand() + torch.rand(()))
"""


@pytest.fixture
def my_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "promised.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("my_code")
@pytest.mark.parametrize("name", [*OURS, "custom"])
def test_a_loss_under_bf16_autocast_is_computed_in_float32(name: str) -> None:
    loss = Custom("promised.mixes_classes", C) if name == "custom" else make(name, costs=THIRDS)
    logits, target = batch(0)
    logits = logits.bfloat16()
    targets = [target, mixed(0).float()] if loss.soft_targets else [target]
    for labels in targets:
        full, half = logits.float().requires_grad_(), logits.clone().requires_grad_()
        expected = loss(full, labels)
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(half, labels)
        assert value.dtype == torch.float32
        assert value.equal(expected)
        torch.testing.assert_close(value.double(), loss(logits.double(), labels).double(), rtol=1e-5, atol=0)
        expected.backward()
        value.backward()
        assert half.grad is not None
        assert full.grad is not None
        assert half.grad.equal(full.grad.bfloat16())


@pytest.mark.parametrize("name", OURS)
def test_a_loss_is_computed_where_the_logits_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device "meta", which has no values: a CPU tensor among its tensors is an error."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    loss = make(name, costs=COSTS, **({"weights": list(range(1, 11))} if name in WEIGHTED else {})).train()
    logits = torch.empty(4, C, device="meta")
    assert loss(logits, torch.empty(4, dtype=torch.long, device="meta")).device == logits.device


@pytest.mark.parametrize("name", OURS)
def test_the_constants_of_a_loss_are_in_no_checkpoint_and_survive_copies_and_casts(name: str) -> None:
    loss = make(name, costs=THIRDS, **({"weights": list(range(1, 11))} if name in WEIGHTED else {})).train()
    logits, target = batch(0)
    expected = loss(logits.float(), target)
    assert not loss.state_dict()
    assert deepcopy(loss)(logits.float(), target).equal(expected)
    assert deepcopy(loss).bfloat16()(logits.float(), target).equal(expected), "no constant is rounded"


def draws(seed: int, epoch: int, rank: int = 0, mix: Mix | None = None) -> list[Tensor]:
    """What two batches of the same images, in the same order, come out as."""
    images = torch.arange(1, 50, dtype=torch.uint8).view(1, 1, 7, 7).expand(32, -1, -1, -1)
    labels = torch.zeros(32, dtype=torch.long) if mix is None else torch.arange(32)
    augment = Augment(flip=0.5, translate=2, erase=3) if mix is None else None
    options: dict[str, Any] = {"rank": rank, "world_size": 2, "seed": seed, "epoch": lambda: epoch}
    if mix is not None:  # all in one batch, which is not shuffled
        options |= {"mix": mix, "num_classes": 32, "world_size": 1}
    size = 32 if mix else 8
    batches = Batches(images, labels, size, Normalize([0.0], [1 / 255]), augment, shuffle=True, **options)
    return [target if mix else pixels for pixels, target in batches]


def test_augmentation_is_different_in_each_seed_epoch_rank_and_batch_and_the_same_when_they_are() -> None:
    found = [draws(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
    assert [len(batches) for batches in found] == [2] * 8
    assert not any(a.equal(b) for a, b in combinations([one for batches in found for one in batches], 2))
    again = [draws(seed, epoch, rank) for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1)]
    assert_same(found, again)


@pytest.mark.parametrize("mix", [Mixup(1.0), CutMix()])
def test_mixing_is_different_in_each_seed_and_epoch_and_the_same_when_they_are(mix: Mix) -> None:
    found = [draws(seed, epoch, mix=mix)[0] for seed in (0, 1) for epoch in (0, 1)]
    assert not any(a.equal(b) for a, b in combinations(found, 2))
    assert_same(found, [draws(seed, epoch, mix=mix)[0] for seed in (0, 1) for epoch in (0, 1)])


def test_seeds_are_mixed_by_splitmix64() -> None:
    """The first numbers of its authors' C code from the states 0 and 1234567, and the second one from the first."""
    assert _mix(0) == 0xE220A8397B1DCDAF
    assert _mix(1234567) == 6457827717110365317
    assert _mix(0, 7) == _mix(_mix(0) + 7)


def test_every_shift_is_equally_likely() -> None:
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1
    moved = Augment(translate=2)(point.expand(2500, -1, -1, -1), torch.Generator().manual_seed(0))
    places = Counter(divmod(int(place), 9) for place in moved.flatten(1).argmax(1))
    assert set(places) == set(product(range(2, 7), repeat=2))
    assert all(60 < count < 140 for count in places.values()), "100 each"


@pytest.mark.parametrize("side", [2, 3])
def test_every_centre_of_an_erased_square_is_equally_likely(side: int) -> None:
    erased = Augment(erase=side)(torch.ones(4200, 1, 6, 7), torch.Generator().manual_seed(0))[:, 0]
    found = Counter(tuple(map(tuple, (image == 0).nonzero().tolist())) for image in erased)
    squares = [
        tuple((y, x) for y in range(top, top + side) for x in range(left, left + side) if 0 <= y < 6 and 0 <= x < 7)
        for top, left in product(range(-(side // 2), 6 - side // 2), range(-(side // 2), 7 - side // 2))
    ]
    assert set(found) == set(squares)
    assert all(60 < count < 145 for count in found.values()), "100 each"


def test_the_box_of_cutmix_has_its_share_of_the_area_unless_it_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    share, partner = torch.full((400,), 0.75), torch.arange(400).roll(1)
    monkeypatch.setattr("lossfit.data.mix._draw", lambda *_: (partner, share))
    black_and_white = (torch.arange(400) % 2).float().view(-1, 1, 1, 1).expand(-1, 1, 32, 16)
    labels = torch.arange(400) % 2
    mixed, target = CutMix()(black_and_white, labels, 2, torch.Generator().manual_seed(0))
    pasted = (mixed != black_and_white).squeeze(1)
    assert pasted.any(2).sum(1).max() == 16  # half of either side, for a quarter of the area
    assert pasted.any(1).sum(1).max() == 8
    assert pasted.any(2).sum(1).min() <= 9, "a box around a point of the edge is cut in half"
    torch.testing.assert_close(target[torch.arange(400), labels], 1 - pasted.float().mean((1, 2)))


def test_a_batch_on_another_device_is_augmented_there() -> None:
    """On the device "meta", which has no values: a tensor of the processor's among its tensors is an error."""
    images, numbers = torch.empty(4, 1, 9, 9, device="meta"), torch.empty(4, 2, dtype=torch.long, device="meta")
    for result in (
        flip(images, torch.empty(4, dtype=torch.bool, device="meta")),
        translate(images, numbers, largest=2),
        erase(images, numbers[:, 0], numbers[:, 1], numbers[:, 0]),
    ):
        assert result.device == images.device


@pytest.mark.parametrize(("count", "sizes"), [(5, [[2], [2]]), (6, [[2, 1], [2, 1]]), (9, [[2, 2], [2, 2]])])
def test_a_rest_smaller_than_the_number_of_ranks_joins_the_batch_before(count: int, sizes: list[list[int]]) -> None:
    images, labels = torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count)
    loaders = [
        Batches(images, labels, 2, Normalize([0.0], [1.0]), shuffle=True, rank=rank, world_size=2) for rank in (0, 1)
    ]
    found = [[len(target) for _, target in loader] for loader in loaders]
    rest = count % 2  # which rank 0 has
    assert found == [[*sizes[0][:-1], sizes[0][-1] + rest], sizes[1]]


def test_batches_alone_are_all_samples_once_in_order() -> None:
    batches = Batches(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), torch.arange(5), 2, Normalize([0.0], [1.0]))
    assert [target.tolist() for _, target in batches] == [[0, 1], [2, 3], [4]]


OPTIONS = [  # of a data module: its least and largest values, and values just outside
    ("batch_size", (1, "all"), (0, "none")),
    ("eval_batch_size", (1,), (0,)),
    ("val_size", (1,), (0,)),
    ("subset", (1, None), (0,)),
    ("imbalance", (1.0,), (0.999, float("inf"), float("nan"))),
    ("label_noise", (0.0, 1.0), (-1e-9, 1 + 1e-9, float("nan"))),
    ("outliers", (0.0, 1.0), (-1e-9, 1 + 1e-9, float("nan"))),
]


@pytest.mark.parametrize(("option", "inside", "outside"), OPTIONS)
def test_ranges_of_data_end_where_the_message_says(
    option: str, inside: tuple[Any, ...], outside: tuple[Any, ...]
) -> None:
    for value in inside:
        assert getattr(InMemoryDataModule(**{option: value}), option) == value
    for value in outside:
        with pytest.raises(ValueError, match=f"^{option} must be .*, got {re.escape(repr(value))}$"):
            InMemoryDataModule(**{option: value})


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixing_made_in_python_has_the_alpha_of_the_command_line(kind: type[Mixup] | type[CutMix]) -> None:
    listed = yaml.safe_load((ROOT / "conf" / "data" / "mix" / f"{kind.__name__.lower()}.yaml").read_text())
    assert kind().alpha == listed["alpha"]


@pytest.mark.parametrize(("options", "cost"), [({}, 5.0), ({"link": "softmax"}, 5.0), ({"link": "sigmoid"}, 0.0)])
def test_an_evaluation_is_the_mean_over_samples_of_uneven_batches(options: dict[str, str], cost: float) -> None:
    """By softmax, class 1 has the share 0.95 and is the cheapest; by the shares of sigmoids, 0.66, class 0 is."""
    evaluation = with_costs("ab", [[0.0, 5.0], [1.0, 0.0]], **options)
    logits = torch.tensor([[0.0, 3.0]])
    evaluation.update(torch.tensor(1.0), logits, torch.tensor([0]))
    evaluation.update(torch.tensor(4.0), logits.expand(2, -1), torch.tensor([0, 0]))
    found = evaluation.compute()
    assert found["confusion"].tolist() == [[0, 3], [0, 0]]
    expected = {"loss": 3, "nll": math.log(1 + math.exp(3)), "acc": 0, "cost": cost, "cost_argmax": 5}
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected)


class BlackAndWhite(InMemoryDataModule):
    """Class 0 is black and class 1 white, so that the mean of a mixed image is the share of class 1; no image is 2."""

    class_names = ("black", "white", "neither")
    mean, std = (0.0,), (1.0,)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        labels = torch.arange(90) % 2
        return (255 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 7, 7).clone(), labels


class Brightness(nn.Module):
    """Says white where more than half of the image is, or with sign -1 where less is."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, images: Tensor) -> Tensor:
        white = self.sign * (images.mean((1, 2, 3)) - 0.5)
        return torch.stack([-white, white, torch.full_like(white, -1)], 1)


@pytest.mark.parametrize("mix", [Mixup(1.0), CutMix()])
@pytest.mark.parametrize(("sign", "accuracy"), [(1.0, 1), (-1.0, 0)])
def test_training_accuracy_counts_the_likeliest_class_of_a_mixed_target(mix: Mix, sign: float, accuracy: int) -> None:
    optimizer = partial(torch.optim.SGD, lr=0.0)
    module = TrainingModule(Brightness(sign), CrossEntropy(3), optimizer, schedules.none, {}, Classification("abc"))
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, BlackAndWhite(batch_size=32, val_size=10, mix=mix))
    assert float(trainer.callback_metrics["train/acc"]) == accuracy


@pytest.mark.usefixtures("my_code")
def test_a_run_that_uses_python_numpy_and_torch_generators_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*THREE, "model=linear", "loss=custom", "loss.function=promised.noisy", "trainer.max_epochs=1"]
    overrides += ["callbacks.last_checkpoint.every_n_steps=1"]
    fit(tmp_path / "whole", *overrides)
    fit_killed(monkeypatch, 5, tmp_path / "killed", *overrides)
    engine.train(tmp_path / "killed")
    for part in ("state_dict", "ranks"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part], part)


def test_all_ranks_validate_the_running_statistics_that_the_checkpoint_holds(tmp_path: Path) -> None:
    """Validated between two steps of accumulated gradients, where DDP itself doesn't make the ranks' statistics equal.

    After any other step, DDP does so in the first forward of the validation.
    """
    options = [
        "trainer=ddp_sim", "model=cnn", "model.widths=[4]", "model.strides=[4]", "test=false",
        "data.batch_size=32", "optimizer.lr=0.01", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3",
        "trainer.limit_train_batches=4", "callbacks.checkpoint.save_on_train_epoch_end=false",
        "callbacks.pictures=null",
    ]  # fmt: skip
    done = forks.run(["train.py", *QUICK, *options, f"hydra.run.dir={tmp_path}/run"], ranks=1)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1
    config = checkpoint["hyper_parameters"]["config"]
    config["trainer"] |= {"devices": 1, "strategy": "auto"}
    run = build_run(config, tmp_path / "alone")
    run.module.load_state_dict(checkpoint["state_dict"])
    (alone,) = run.trainer.validate(run.module, run.data, verbose=False)
    for name in ("val/loss", "val/nll", "val/acc"):
        assert found[name] == pytest.approx(alone[name], rel=1e-6), name


def test_a_checkpoint_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves can't be tested here: the order of the calls decides it."""
    calls: list[Any] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        about = os.fstat(descriptor)
        calls.append(("sync", about.st_ino, about.st_size if about.st_ino != tmp_path.stat().st_ino else None))
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append(("rename", Path(source).parent, Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1000)}, target)
    file, folder = target.stat(), tmp_path.stat()
    assert calls == [
        ("sync", file.st_ino, file.st_size),
        ("rename", tmp_path, target),
        ("sync", folder.st_ino, None),
    ]


def test_a_folder_in_torchvisions_layout_that_lacks_files_is_the_one_that_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "FashionMNIST" / "raw"
    inner.mkdir(parents=True)
    with pytest.raises(DataError, match=f"and {inner} does not \\(missing: train-images"):
        FashionMNISTDataModule(dir=str(tmp_path)).prepare_data()


def test_the_log_names_what_is_downloaded_and_the_source_that_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed, caplog.at_level("INFO", "lossfit"):
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(DataError, match="could not be found or fetched"):
            obtain({"one": "0" * 64}, [tmp_path], [Mirror(url)])
    begun, failed = caplog.messages
    assert begun == f"downloading {url}one.gz"
    assert failed.startswith(f"{url} failed: one.gz: ")


def test_a_command_that_does_not_end_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "silent")
    with pytest.raises(OSError, match="cat did not finish in 0 s"):
        DebianPackage("any", "anywhere", timeout=0.2)._run(["cat", "silent"], str(tmp_path))
