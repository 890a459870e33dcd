"""What a run says before it starts, of steps that are too few or too large for what it trains."""

from pathlib import Path

import pytest

from lossfit import option_files
from lossfit.training.build import build_run
from lossfit.training.notes import experiment_notes, pretrained_notes
from tests.conftest import QUICK, compose


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["trainer.max_epochs=3"],
            "Warning: 12 steps of the optimizer are few for a network (500 images in batches of 128, "
            "trainer.max_epochs=3): add trainer.max_epochs=50",
        ),
        (["trainer.max_epochs=13"], None),  # 52 steps
        (["data.batch_size=all", "trainer.max_epochs=20"], None),
        (["trainer.max_steps=3"], None),
        (["trainer.limit_train_batches=2"], None),
        (["trainer.fast_dev_run=true"], None),
    ],
)
def test_a_training_of_few_steps_is_warned_of(overrides: list[str], expected: str | None, tmp_path: Path) -> None:
    run = build_run(compose(*QUICK, "callbacks=[]", "logger=[]", *overrides), tmp_path)
    assert [note for note in run.notes if "steps of the optimizer" in note] == ([expected] if expected else [])


def test_accumulation_makes_fewer_steps(tmp_path: Path) -> None:
    options = ["trainer.max_epochs=20", "trainer.accumulate_grad_batches=4"]
    run = build_run(compose(*QUICK, "callbacks=[]", "logger=[]", *options), tmp_path)
    (note,) = [note for note in run.notes if "steps of the optimizer" in note]
    assert note.startswith("Warning: 20 steps")
    assert note.endswith("add trainer.max_epochs=200")


def test_muon_with_its_large_steps_is_warned_of_for_pretrained_weights() -> None:
    expected = [
        "Warning: optimizer.lr=0.2 of muon replaces pretrained weights within a few steps: "
        "add experiment=finetune, or optimizer=adamw optimizer.lr=1e-3"
    ]
    pretrained = ["model=timm", "model.weights=hub"]
    assert pretrained_notes(compose(*pretrained)) == expected
    assert pretrained_notes(compose(*pretrained, "experiment=finetune")) == []
    assert pretrained_notes(compose(*pretrained, "optimizer.lr=0.01")) == []
    assert pretrained_notes(compose("init_from=RUN")) == expected
    assert pretrained_notes(compose("model=timm")) == []
    assert pretrained_notes(compose()) == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["experiment=finetune", "optimizer=sgd"],
            "Warning: experiment=finetune is made for optimizer=adamw, and its optimizer.lr=1e-3 holds for "
            "optimizer=sgd too: for the value of sgd add optimizer.lr=0.1",
        ),
        (["experiment=finetune"], None),
        (["experiment=finetune", "optimizer=adam"], None),  # whose lr is 1e-3 too
        (["experiment=finetune", "optimizer=sgd", "optimizer.lr=0.1"], None),
        (["experiment=finetune", "optimizer=sgd", "optimizer.lr=0.2"], None),  # typed
        (["experiment=cnn", "data=digits"], None),
        (["experiment=gpu_94", "trainer=auto"], None),
        (["optimizer=sgd"], None),
    ],
)
def test_what_an_experiment_sets_for_another_option_is_said(
    overrides: list[str], expected: str | None, tmp_path: Path
) -> None:
    assert experiment_notes(compose(*overrides)) == ([expected] if expected else [])


def test_a_run_begins_with_what_its_experiment_sets(tmp_path: Path) -> None:
    run = build_run(compose(*QUICK, "experiment=finetune", "optimizer=sgd"), tmp_path)
    assert [note for note in run.notes if "experiment=finetune is made for" in note]


@pytest.mark.parametrize("option", ["none", "shift", "photo"])
def test_an_augmentation_that_is_typed_replaces_that_of_every_experiment(option: str) -> None:
    typed = f"data/augment={option}"
    alone = compose(typed)["data"]["augment"]
    for name in option_files.options("experiment"):
        assert compose(f"experiment={name}", typed)["data"]["augment"] == alone


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainer.max_epochs=3"], "epoch 3, the last one, is not validated, so that it cannot become best.ckpt"),
        (["trainer.max_epochs=1"], "no epoch is validated, so that there is no best.ckpt"),
        (["trainer.max_epochs=4"], None),
        (["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1"], None),
        (["trainer.max_epochs=3", "callbacks=[]"], None),
        (["trainer.max_steps=3"], None),
    ],
)
def test_a_last_epoch_that_is_not_validated_is_warned_of(
    overrides: list[str], expected: str | None, tmp_path: Path
) -> None:
    every = "trainer.check_val_every_n_epoch=2"
    run = build_run(compose(*QUICK, every, "callbacks=[checkpoint]", "logger=[]", *overrides), tmp_path)
    notes = [note for note in run.notes if "validated" in note]
    assert len(notes) == (expected is not None)
    if expected is not None:
        assert notes[0].startswith(f"Warning: {expected}: trainer.max_epochs=")
        assert notes[0].endswith(("; add trainer.max_epochs=4", "; add trainer.max_epochs=2"))
