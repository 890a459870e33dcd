"""scripts/diagnose.py says again what a run was found to suffer from, and draws the series behind it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from lossfit import runs
from lossfit.diagnosis import Finding, Found, History, picture
from lossfit.errors import UserError
from lossfit.runs.diagnosed import diagnose
from lossfit.system import locks
from tests.conftest import ROOT, fit
from tests.test_compare import put

Script = Callable[..., tuple[int, str, str]]
RULES = "lossfit.diagnosis.rules"
OVERFITTING = {"overfitting": {"_target_": f"{RULES}.overfitting", "_partial_": True}}
FACTS = {
    "task": "classification", "headline": "val/acc", "direction": "max", "outputs": 3, "names": ["a", "b", "c"],
    "parameters": ["conv.weight", "head.weight"], "sizes": [9, 9], "dims": [2, 2], "units": ["relu"],
    "train_samples": 900, "val_samples": 300, "batches_per_epoch": 10, "total_steps": 200, "max_epochs": 20,
    "frozen": [], "batch_size": 90, "every_n_steps": 5, "class_share": [0.3, 0.3, 0.4], "constant_loss": 1.0986,
    "first_loss": 1.1, "from_pretrained": False, "val_in_train": 0, "augmented": False, "mixed": False,
    "non_finite": None, "suspects": [],
}  # fmt: skip


def history(overfits: bool, **facts: Any) -> History:
    """20 epochs; the loss of the training images falls, and that of the validation too or, from epoch 6, rises."""
    steps = [
        {
            "step": step, "epoch": step / 10, "loss": 1.1 * 0.8 ** (step / 10), "loss_max": 1.2, "lr": 0.01,
            "grad_norm": 1.0, "grad": [0.1, 0.2], "weight": [1.0, 2.0], "update": [0.001, 0.002],
        }
        for step in range(5, 201, 5)
    ]  # fmt: skip
    rows = [
        {
            "step": 10 * epoch, "epoch": epoch, "lr": 0.01, "train_loss": 1.1 * 0.8**epoch,
            "sample_loss": 1.1 * 0.8**epoch, "sample_score": 1 - 0.8**epoch,
            "val_loss": 0.4 + 0.1 * (epoch - 6) if overfits and epoch > 6 else 1.1 * 0.85**epoch, "val_score": 0.7,
            "recall": [0.7, 0.7, 0.7], "predicted_share": [0.3, 0.3, 0.4], "dead": [0.0],
            "bins": np.concatenate([np.zeros(42), [300.0, 270.0, 210.0]]), "margins": np.linspace(-0.2, 1, 21),
        }
        for epoch in range(1, 21)
    ]  # fmt: skip
    return History.of(FACTS | facts, steps, rows)


def write(folder: Path, recorded: History, rules: Mapping[str, Any] = OVERFITTING) -> Path:
    """Write a run folder with what the callback recorded."""

    def change(config: dict[str, Any]) -> None:
        config["callbacks"]["diagnosis"]["rules"] = dict(rules)

    put(folder, change=change, val_acc=0.7)
    (folder / "diagnosis.json").write_text(json.dumps({"findings": [], "history": recorded.to_plain()}))
    return folder


def test_a_finding_is_said_and_drawn(script: Script, tmp_path: Path) -> None:
    run = write(tmp_path / "run", history(overfits=True))
    status, said, err = script("diagnose", run)
    assert (status, err) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "1 finding by 1 rule on 20 evaluations and 40 recorded steps"
    assert lines[2].startswith("Warning: overfitting since epoch ")
    assert lines[-1] == str(run / "diagnosis.png")
    assert (run / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert script("diagnose", run, "--png", tmp_path / "other.png")[0] == 0
    assert (tmp_path / "other.png").read_bytes() == (run / "diagnosis.png").read_bytes()


def test_nothing_found(script: Script, tmp_path: Path) -> None:
    run = write(tmp_path / "run", history(overfits=False), OVERFITTING | {"leak": None})
    (run / "diagnosis.png").write_bytes(b"of rules that found something")
    assert script("diagnose", run) == (0, "nothing was found by 1 rule on 20 evaluations and 40 recorded steps\n", "")
    assert not (run / "diagnosis.png").exists()


def test_it_finds_what_the_run_found(script: Script, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(run, "optimizer=adam", "optimizer.lr=10", "trainer.max_epochs=2", "data.batch_size=32")
    stored = json.loads((run / "diagnosis.json").read_text())["findings"]
    assert stored, "or the test says nothing"
    found = diagnose(run).found
    assert [one.last.name for one in found] == [one["name"] for one in stored]
    assert runs.read_result(run)["findings"] == [one["name"] for one in stored if one["holds"]]
    assert [one.last.text for one in found] == [one["text"] for one in stored]
    assert [(one.first.epoch, one.first.step) for one in found] == [tuple(one["since"].values()) for one in stored]
    said, logged = script("diagnose", run)[1], (run / "train.log").read_text()
    for one in stored:
        (line,) = (line for line in said.splitlines() if one["text"] in line)
        assert line in logged


def test_images_whose_labels_look_wrong_are_listed(script: Script, tmp_path: Path) -> None:
    known = {"index": 7, "label": "a", "predicted": "c", "margin": -0.5}
    hostile = [7, {"index": 8}, known | {"index": "7"}, known | {"index": -1}, known | {"label": "\x1b"}]
    recorded = history(overfits=False, suspects=[known, known | {"index": 12, "label": "b"}, *hostile])
    recorded.evaluations["sample_score"][:], recorded.evaluations["val_score"][:] = 0.3, 0.9
    rule = {"label_noise": {"_target_": f"{RULES}.label_noise", "_partial_": True}}
    run = write(tmp_path / "run", recorded, rule)
    status, said, err = script("diagnose", run)
    assert (status, err) == (0, "")
    assert "; scripts/diagnose.py lists 7 of them\n" in said
    assert "\n  images of the training split, from 0: 7 a, predicted c; 12 b, predicted c\n" in said


def test_names_from_elsewhere_are_escaped(script: Script, tmp_path: Path) -> None:
    from lossfit.runs.diagnosed import Diagnosed

    finding = Finding("x", "note", "in \x1b[2Jlayer", 1.0, 10, {}, ())
    run = Diagnosed(tmp_path, {}, history(overfits=False), {}, [], {"x": []})
    assert run.lines(Found(finding, finding))[0] == r"Note: x since epoch 1: in \x1b[2Jlayer"


def test_a_folder_without_a_diagnosis_has_its_remedy(script: Script, tmp_path: Path) -> None:
    for name, status, remedy in (
        ("a", "completed", "the run was trained without the callback that writes it: train again with +callbacks=dia"),
        ("b", "interrupted", f"it is written when the training ends; python train.py resume={tmp_path}/b goes on"),
        ("c", "failed", "the run failed: OSError: no space left"),
        ("d", "completed", "it was removed; train again"),
    ):
        off = (lambda config: config["callbacks"].update(diagnosis=None)) if name == "a" else (lambda config: None)
        put(tmp_path / name, status=status, reason="OSError: no\nspace left", change=off)
        code, said, err = script("diagnose", tmp_path / name)
        assert (code, said) == (2, "")
        assert err.splitlines()[0].startswith(f"Error: {tmp_path / name} has no diagnosis.json: {remedy}")
    put(tmp_path / "e", "callbacks.diagnosis=null")
    assert "train again without callbacks.diagnosis=null" in script("diagnose", tmp_path / "e")[2]
    put(tmp_path / "f", status="running")
    with locks.held(tmp_path / "f"):
        assert "the run is still training: wait until it ends" in script("diagnose", tmp_path / "f")[2]
    (tmp_path / "empty").mkdir()
    assert "holds no run" in script("diagnose", tmp_path / "empty")[2]
    assert script("diagnose", tmp_path / "nowhere")[0] == 2
    file = tmp_path / "a" / "checkpoints" / "best.ckpt"
    file.touch()
    assert f"it is a file of a run: name the run folder, {tmp_path / 'a'}" in script("diagnose", file)[2]
    assert f"name the run folder, {tmp_path / 'a'}" in script("report", file)[2]
    for name in ("diagnose", "report"):
        assert script(name, ROOT / "conf")[2].startswith(f"Error: {ROOT / 'conf'} holds no run: ")


def damaged() -> dict[str, str]:
    whole = {"findings": [], "history": history(overfits=True).to_plain()}
    files = {"torn": json.dumps(whole)[:-9], "a list": "[]", "nothing": "{}", "deep": "[" * 5000, "bytes": "\udcff"}
    for name, change in {
        "no steps": lambda history: history.pop("steps"),
        "a text": lambda history: history["evaluations"].update(val_loss=["x"] * 20),
        "columns of other lengths": lambda history: history["evaluations"]["val_loss"].pop(),
        "more rows than any run writes": lambda history: history["evaluations"].update(
            {name: [None] * 20_001 for name in history["evaluations"]}
        ),
        "a huge integer": lambda history: history["steps"]["step"].__setitem__(-1, 10**400),
        "steps that go back": lambda history: history["steps"]["step"].reverse(),
        "bins of another number": lambda history: history["evaluations"].update(bins=[[1.0, 2.0]] * 20),
        "norms of other parameters": lambda history: history["steps"].update(weight=[[1.0]] * 40),
        "ragged rows": lambda history: history["steps"]["grad"].__setitem__(0, [1.0]),
        "no mapping": lambda history: history.update(facts=7),
        "a rule's columns": lambda history: history["evaluations"].update(val_loss=[[1.0, 2.0]] * 20),
    }.items():
        content = json.loads(json.dumps(whole))
        change(content["history"])
        files[name] = json.dumps(content)
    return files


@pytest.mark.parametrize("text", damaged().values(), ids=damaged())
def test_a_damaged_file_is_named(text: str, script: Script, tmp_path: Path) -> None:
    run = write(tmp_path / "run", history(overfits=True))
    (run / "diagnosis.json").write_bytes(text.encode(errors="surrogateescape"))
    status, said, err = script("diagnose", run)
    assert (status, said) == (2, "")
    line, hint = err.splitlines()
    assert line.startswith(f"Error: {run / 'diagnosis.json'} is damaged: ")
    assert line.endswith("only a new run writes it")
    assert "HYDRA_FULL_ERROR" in hint


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(model=None),
        lambda config: config.update(data=7),
        lambda config: config["data"]["augment"].update(translate="x"),
        lambda config: config.pop("model"),
    ],
)
def test_a_config_to_which_no_remedy_fits_is_named(
    change: Callable[[dict[str, Any]], None], script: Script, tmp_path: Path
) -> None:
    run = write(tmp_path / "run", history(overfits=True))
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status, said, err = script("diagnose", run)
    assert (status, said) == (2, "")
    assert err.startswith(f"Error: {run / 'config.yaml'} is damaged: no remedy can be fitted to it (")
    assert len(err.splitlines()) == 2, "the message, and how to see the traceback"


@pytest.mark.parametrize(
    "rule",
    [
        {"_target_": "torch.nn.Linear", "_partial_": True},
        {"_target_": f"{RULES}.overfitting"},
        {"_target_": f"{RULES}.overfitting", "_partial_": True, "rise": {"_target_": "lossfit.data.FashionMNIST"}},
        {"_target_": f"{RULES}x.overfitting", "_partial_": True},
        {"_target_": f"{RULES}.series.np.load", "_partial_": True},
        {"_target_": f"{RULES}.series.update_ratios", "_partial_": True},
        {"_target_": [f"{RULES}.overfitting"], "_partial_": True},
        "overfitting",
    ],
)
def test_only_rules_of_lossfit_are_built(rule: Any, tmp_path: Path) -> None:
    run = write(tmp_path / "run", history(overfits=True), {"a": rule})
    with pytest.raises(UserError) as error:
        diagnose(run)
    assert "callbacks.diagnosis.rules.a" in str(error.value)
    content = yaml.safe_load((run / "config.yaml").read_text())
    del content["callbacks"]["diagnosis"]
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"has no callbacks\.diagnosis\.rules"):
        diagnose(run)


def test_a_sweep_gets_a_line_for_each_run(script: Script, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    put(sweep / "0", "optimizer=sgd", findings=["divergence", "plateau"], val_acc=0.5)
    put(sweep / "1", "optimizer=adam", findings=["plateau"], status="diverged")
    put(sweep / "2", "optimizer=adam", findings=[], seed=2)
    put(sweep / "3", "optimizer=lion", status=None)
    status, said, err = script("diagnose", sweep)
    assert (status, err) == (0, "")
    assert said.splitlines() == [
        "0  divergence, plateau  (optimizer=sgd, seed=1)",
        "1  plateau (diverged)  (optimizer=adam, seed=1)",
        "2  nothing found  (optimizer=adam, seed=2)",
        "3  no diagnosis (waiting)  (optimizer=lion, seed=1)",
        "",
        "3 diagnosed runs of 4: plateau 2, divergence 1, nothing found 1",
    ]
    status, _, err = script("diagnose", sweep, "--png", tmp_path / "x.png")
    assert status == 2
    assert "--png draws one run" in err


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    saved: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **options: saved.append(figure))
    return saved


def drawn(figures: list[Figure], finding: Finding, recorded: History) -> list[Any]:
    picture.picture(recorded, [Found(finding, finding)], "run")
    return figures[-1].get_axes()


def test_a_picture_has_the_series_and_since_when(figures: list[Figure]) -> None:
    recorded = history(overfits=True)
    series = ("evaluations.val_loss", "evaluations.sample_loss", "evaluations.val_score", "steps.lr")
    losses, scores, lr = drawn(figures, Finding("x", "note", "text", 6.0, 60, {}, series), recorded)
    assert [axes.get_ylabel() for axes in (losses, scores, lr)] == ["loss", "val/acc", "learning rate"]
    val, sample, since = losses.lines
    np.testing.assert_allclose(val.get_xdata(), range(1, 21))
    np.testing.assert_allclose(val.get_ydata(), recorded.evaluations["val_loss"])
    np.testing.assert_allclose(sample.get_ydata(), recorded.evaluations["sample_loss"])
    assert list(since.get_xdata()) == [6, 6]
    assert since.get_label() == "since epoch 6"
    np.testing.assert_allclose(lr.lines[0].get_xdata(), recorded.steps["epoch"])


def test_the_members_that_the_evidence_names_have_a_label(figures: list[Figure]) -> None:
    names = [f"layers.{k}.weight" for k in range(12)]
    recorded = history(overfits=True, parameters=names)
    recorded.steps["update"] = np.outer(np.linspace(1, 2, 40), np.arange(12))
    recorded.steps["weight"] = np.full((40, 12), 4.0)
    for evidence, labels in (
        ({"modules": ["layers.1"]}, ["layers.1.weight"]),
        ({"units": {"layers.3": 0.5}, "worst": "layers.11"}, ["layers.3.weight", "layers.11.weight"]),
        ({}, ["layers.0.weight", "layers.11.weight"]),
    ):
        (axes,) = drawn(figures, Finding("x", "note", "text", 1.5, 15, evidence, ("steps.update",)), recorded)
        assert axes.get_legend_handles_labels()[1] == [*labels, "since step 15"]
        assert len(axes.lines) == 12 + 1, "the others are faint"
        assert axes.get_yscale() == "log"
    assert axes.lines[11].get_ydata()[0] == pytest.approx(11 / 4), "the update in the norm of the weights"


def test_calibration_margins_and_findings_without_series(figures: list[Figure]) -> None:
    recorded = history(overfits=True)
    (axes,) = drawn(figures, Finding("x", "note", "text", 1.0, 10, {}, ("evaluations.bins",)), recorded)
    assert axes.lines[1].get_xydata().tolist() == [[pytest.approx(0.9), pytest.approx(0.7)]]
    (axes,) = drawn(figures, Finding("x", "note", "text", 1.0, 10, {}, ("evaluations.margins",)), recorded)
    assert "50% of the images are below" in axes.get_legend_handles_labels()[1]
    recorded.evaluations["val_loss"][:] = np.nan
    for series in ((), ("evaluations.val_loss",), ("steps.unknown",)):
        (axes,) = drawn(figures, Finding("x", "note", "text", 1.0, 10, {"images": 3}, series), recorded)
        assert [text.get_text() for text in axes.texts] == ["images: 3"]


def test_a_picture_replaces_no_file_of_a_run(script: Script, tmp_path: Path) -> None:
    run = write(tmp_path / "$\\frac$", history(overfits=True))
    status, _, said = script("diagnose", run, "--png", run / "config.yaml")
    assert (status, "config.yaml would replace a file of a run: choose another name" in said) == (2, True)
    assert script("diagnose", run)[0] == 0, "the name of the folder is no formula"
