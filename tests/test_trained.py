"""lossfit.load: the classifier of a run folder or a checkpoint, and the messages for other files."""

import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import lossfit
from lossfit.errors import UserError
from tests.conftest import ROOT, fit, sample
from tests.test_losses import NODES, for_task

NEEDED = {  # what some losses need -> overrides
    "ldam": ["model.cosine_scale=30"],
    "forward_correction": ["data.label_noise=0.4"],
    "expected_cost": ["+costs.Shirt.Coat=5"],
    "custom": ["loss.function=torch.nn.functional.cross_entropy"],
}
LOSSES = {  # one of each family of losses, by the module that defines it
    NODES[name]["_target_"].split(".")[-2]: [f"loss={name}", *NEEDED.get(name, [])]
    for name in sorted([*for_task("classification"), "custom"], reverse=True)
}
CASES = {
    **LOSSES,
    "one_vs_rest, hinge": ["loss=hinge_ovr"],
    "cross_entropy, averaged": ["+callbacks=ema", "trainer.max_epochs=2"],
}


def test_every_family_of_losses_is_tried() -> None:
    modules = {path.stem for path in (ROOT / "src" / "lossfit" / "losses").glob("*.py")} - {"__init__", "loss"}
    assert set(LOSSES) == modules - {"values"}, "for classes"


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES)
def test_a_loaded_classifier_has_the_accuracy_that_the_run_measured(overrides: list[str], tmp_path: Path) -> None:
    metrics = fit(tmp_path / "run", *overrides)
    images, labels = sample()
    classifier = lossfit.load(tmp_path / "run")
    probabilities = classifier(images)
    assert (probabilities.argmax(1) == labels).double().mean().item() == pytest.approx(metrics["test/acc"], abs=1e-7)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200))
    if classifier.costs is not None:
        decided = classifier.predict(images)
        cost = torch.tensor(classifier.costs)[labels, decided].mean().item()
        assert cost == pytest.approx(metrics["test/cost"], rel=1e-5)


def test_a_loaded_classifier_has_the_facts_of_the_run(trained: Path) -> None:
    classifier = lossfit.load(trained / "checkpoints" / "best.ckpt")
    result = json.loads((trained / "result.json").read_text())
    assert classifier.image_shape == (1, 28, 28)
    assert classifier.classes[9] == "Ankle boot"
    assert classifier.epochs == result["best_epoch"]
    assert classifier.metrics["val/acc"] == pytest.approx(result["metrics"]["val/acc"], abs=1e-6)
    assert not classifier.training
    assert classifier.predict(sample()[0]).shape == (200,)
    with pytest.raises(ValueError, match=r"images must be uint8 pixels \(N, C, H, W\), got torch.float32"):
        classifier(torch.zeros(1, 1, 28, 28))


def test_loading_and_predicting_without_hydra_takes_two_lines(trained: Path) -> None:
    code = "\n".join(
        [
            "import lossfit, torch, sys",
            f"classifier = lossfit.load({str(trained)!r})",
            "print(classifier(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape)",
            "assert not any(name.split('.')[0] in ('hydra', 'omegaconf') for name in sys.modules)",
        ]
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=trained.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "torch.Size([2, 10])\n", done.stderr


def test_pretrained_weights_are_not_downloaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "run", "model=torchvision", "model.name=mobilenet_v3_small", "trainer.max_steps=1", "test=false")
    file = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["hyper_parameters"]["config"]["model"]["weights"] = "DEFAULT"
    torch.save(checkpoint, file)

    def no_network(*args: Any, **options: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    assert lossfit.load(file)(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).shape == (1, 10)


def test_loading_leaves_the_random_generators_as_they_are(trained: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    lossfit.load(trained)
    assert torch.equal(torch.get_rng_state(), before)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def refused(path: Path) -> str:
    """Return the one line of the error that a file raises."""
    with pytest.raises(UserError) as caught:
        lossfit.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_files_that_are_no_checkpoints_are_refused_by_name(trained: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere").endswith("no such run folder or checkpoint")
    assert "is no run folder: it has no config.yaml" in refused(tmp_path)
    assert "is no run folder: it has neither checkpoints nor result.json" in refused(ROOT / "conf")
    runs = tmp_path / "runs"
    for folder in ("10", "2"):
        (runs / folder / "checkpoints").mkdir(parents=True)
        (runs / folder / "config.yaml").touch()
    assert f"is no run folder: it is a folder of runs: name one, such as {runs / '2'}" in refused(runs)
    (runs / "sweep.yaml").touch()
    assert f"is no run folder: it is a sweep: name one of its runs, such as {runs / '2'}" in refused(runs)

    file = tmp_path / "file.ckpt"
    whole = (trained / "checkpoints" / "best.ckpt").read_bytes()
    for content in (b"", whole[: len(whole) // 2], whole[:-100], b"learning rate: 0.1\n", pickle.dumps({"a": 1})):
        file.write_bytes(content)
        assert "is torn, or no checkpoint" in refused(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("letter.txt", "not a tensor")
    assert "is torn, or no checkpoint" in refused(file)
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)
    assert "is no checkpoint of a lossfit run: it has no state_dict" in refused(file)
    torch.save([1, 2], file)
    assert "is no checkpoint of a lossfit run" in refused(file)
    torch.save({**torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True), "hyper_parameters": {}}, file)
    assert "is no checkpoint of a lossfit run: its hyper-parameters have no config" in refused(file)


def test_pickled_code_is_refused_and_not_run(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    trace = tmp_path / "was_run"
    file = tmp_path / "file.ckpt"
    torch.save({**checkpoint, "callbacks": Payload(trace)}, file)
    assert "could run code, and is not loaded" in refused(file)
    file.write_bytes(pickle.dumps({**checkpoint, "callbacks": Payload(trace)}))
    refused(file)
    assert not trace.exists()
    torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)  # the refusal leaves torch as it was
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload works, if it is run"


def test_weights_of_another_model_are_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["config"]["model"] = {"_target_": "lossfit.models.mlp.MLP"}
    torch.save(checkpoint, tmp_path / "file.ckpt")
    assert "its weights do not fit its own model lossfit.models.mlp.MLP" in refused(tmp_path / "file.ckpt")


def test_a_target_outside_the_allowed_ones_is_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    strategy = "lightning.pytorch.strategies.SingleDeviceStrategy"
    for model in (
        {"_target_": "os.system", "command": "true"},
        {"_target_": f"{strategy}.load_checkpoint", "self": {"_target_": strategy}, "checkpoint_path": "evil.pt"},
        {"_target_": "torch.nn.Sequential", "args": [{"_target_": "lossfit.loggers.CSVLogger"}]},
    ):
        checkpoint["hyper_parameters"]["config"]["model"] = model
        torch.save(checkpoint, tmp_path / "file.ckpt")
        assert "which is none of lossfit's: give the model itself" in refused(tmp_path / "file.ckpt")


def test_for_a_torn_best_the_message_offers_last(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    best, last = (folder / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    best.write_bytes(best.read_bytes()[:1000])
    with pytest.raises(UserError) as caught:
        lossfit.load(folder)
    assert str(caught.value) == f"{best} is torn, or no checkpoint; {last}, after 1 epochs, is whole: give that instead"
    lossfit.load(last)
    best.unlink()
    lossfit.load(folder)
    last.unlink()
    assert refused(folder).endswith("has no checkpoint: train it with callbacks.checkpoint to keep one")
    (folder / "result.json").unlink()
    assert refused(folder).endswith(f"has no checkpoint yet: python train.py resume={folder} trains it")


def test_a_file_with_two_readings_is_read_as_it_was_checked(trained: Path, tmp_path: Path) -> None:
    """A legacy file of torch before the zip, and a second pickle whose name differs in case: torch would read those."""
    best = trained / "checkpoints" / "best.ckpt"
    other = io.BytesIO()
    torch.save({"a": 1}, other, _use_new_zipfile_serialization=False)
    file = tmp_path / "file.ckpt"
    file.write_bytes(other.getvalue() + best.read_bytes())
    expected = lossfit.load(best)(sample()[0])
    assert lossfit.load(file)(sample()[0]).equal(expected)

    shutil.copy(best, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/DATA.PKL", pickle.dumps({"a": 1}, protocol=2))
    assert "is there twice" in refused(file)
