"""lossfit.train, lossfit.TrainedRun and lossfit.load_data: training from Python."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossfit
from lossfit import runs
from lossfit.errors import Diverged, UserError
from tests.conftest import QUICK, fit, sample


def test_a_run_is_that_of_the_command_line(tmp_path: Path) -> None:
    run = lossfit.train(*QUICK, "trainer.max_epochs=2", folder=tmp_path / "python", show=False)
    metrics = fit(tmp_path / "command", "trainer.max_epochs=2")
    assert run.status == "completed"
    assert {name: value for name, value in run.metrics.items() if not name.endswith("_s")} == {
        name: value for name, value in metrics.items() if not name.endswith("_s")
    }
    assert run.curve("val/loss") == list(runs.curve(tmp_path / "command", "val/loss").values())
    assert len(run.curve("val/loss")) == 2
    assert run.curve("val/nothing") == []
    assert runs.read_overrides(run.folder) == [*QUICK, "trainer.max_epochs=2"]
    images, labels = sample()
    assert (run.model().predict(images) == labels).float().mean().item() == pytest.approx(run.metrics["test/acc"])
    assert run.history.steps["loss"].shape == run.history.steps["step"].shape


def test_the_folder_is_where_train_py_would_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path("tests/data").resolve()
    monkeypatch.chdir(tmp_path)
    run = lossfit.train(*QUICK, f"data.dir={data}", "model=linear", show=False)
    assert run.folder.parent == Path("logs/train/runs")
    assert "_sample-mlp-adamw-" in run.folder.name
    assert runs.is_run(tmp_path / run.folder)


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lossfit.train(*QUICK, "model=linear", folder=tmp_path / "quiet", show=False)
    assert capsys.readouterr().out == ""
    lossfit.train(*QUICK, "model=linear", folder=tmp_path / "said")
    assert "epoch 1/1" in capsys.readouterr().out


def test_findings_are_in_words_with_remedies(tmp_path: Path) -> None:
    run = lossfit.train(*QUICK, "optimizer.lr=1e-7", "trainer.max_epochs=8", folder=tmp_path / "run", show=False)
    first, second, *_ = run.findings()
    assert first.startswith("Warning: lr_too_small since ")
    assert second.startswith("  add to the end of the command: optimizer.lr=")


def test_a_run_that_diverges_raises_and_its_folder_has_what_was_recorded(tmp_path: Path) -> None:
    own = ["model=linear", "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=3"]
    with pytest.raises(Diverged):
        lossfit.train(*QUICK, *own, folder=tmp_path / "run", show=False)
    assert lossfit.TrainedRun(tmp_path / "run").status == "diverged"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss=focl", "loss=focl: no such option (did you mean 'focal'?)"),
        ("optimizer.lrr=1", "optimizer.lrr: no such key (did you mean 'lr'?)"),
        ("loss=focal loss.gamma=-1", "loss.gamma must be >= 0, got -1"),
    ],
)
def test_a_mistake_is_a_user_error_in_one_line_and_leaves_no_folder(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        lossfit.train("data=sample", *override.split(), folder=tmp_path / "run", show=False)
    assert str(refused.value).startswith(message)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="data=smple: no such option"):
        lossfit.load_data("data=smple")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none is not a run folder: it does not exist"):
        lossfit.TrainedRun(tmp_path / "none")
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        lossfit.TrainedRun(tmp_path)


def test_data_are_read_and_split() -> None:
    data = lossfit.load_data("data=sample", "data.classes=[Shirt,Coat]", "data.subset=20")
    images, labels = data.splits["train"]
    assert (images.dtype, images.shape, labels.tolist().count(1)) == (torch.uint8, (20, 1, 28, 28), 10)
    assert list(data.task.names) == ["Shirt", "Coat"]


def test_importing_lossfit_imports_no_torch_and_no_hydra() -> None:
    code = "import lossfit, sys; assert not {'torch', 'hydra', 'lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_new_run_resumes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^resume=old: lossfit\.train begins a new run"):
        lossfit.train("data=sample", "resume=old", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_overrides_are_texts_and_data_are_checked_before_they_are_read() -> None:
    for call in (lossfit.train, lossfit.load_data):
        with pytest.raises(UserError, match=r"^overrides must be texts, .* got \['data=sample'\]; a list of them"):
            call(["data=sample"])
    for override, message in {
        "data.val_size=x": "data.val_size must be a whole number, got 'x'",
        "seed=-1": "seed must be from 0 to 2**32 - 1, got -1",
        "trainer.devices=x": "trainer.devices must be a number >= 1, -1 or auto for all, or a list of indices, got 'x'",
        "~data": "data must be a mapping with a _target_, got None: choose one with data=OPTION",
    }.items():
        with pytest.raises(UserError) as refused:
            lossfit.load_data("data=sample", override) if override != "~data" else lossfit.load_data(override)
        assert str(refused.value) == message


def test_a_result_with_parts_of_a_wrong_type_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear")
    run = lossfit.TrainedRun(tmp_path / "run")
    for damage in ('{"metrics": [1]}', '{"metrics": {}, "timings": null}', "[]", "{"):
        (run.folder / "result.json").write_text(damage)
        assert (run.metrics, run.status) == ({}, None)
