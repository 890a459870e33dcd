"""A stopped run resumes and ends in the same bits; what cannot be resumed is refused with the reason."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rich
import torch

from lossfit import runs
from lossfit.callbacks import LastCheckpoint
from lossfit.errors import ConfigError, Interrupted, RunError, UserError
from lossfit.system import files
from lossfit.training import engine
from lossfit.training.build import build_run
from lossfit.training.checkpoint_io import AtomicCheckpointIO
from lossfit.training.initial_weights import of_another_run
from lossfit.training.module import TrainingModule
from tests import forks
from tests.conftest import QUICK, ROOT, Command, compose, fit, whole_and_resumed

Run = Callable[..., subprocess.CompletedProcess[str]]
THREE = ["trainer.max_epochs=3", "data.batch_size=64", "data/augment=small"]  # 8 steps an epoch


class Killed(RuntimeError):
    """Ends a run so that its folder looks as after a kill."""


def fit_killed(monkeypatch: pytest.MonkeyPatch, step: int, folder: Path, *overrides: str) -> None:
    """Train or resume a run, and end it right after the first checkpoint at or after `step` steps."""
    save = LastCheckpoint._save

    def save_and_die(self: LastCheckpoint, trainer: Any) -> None:
        save(self, trainer)
        if trainer.global_step >= step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "_save", save_and_die)
        with pytest.raises(RunError):
            engine.train(folder) if folder.exists() else fit(folder, *overrides)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def curves(folder: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return [{name: value for name, value in row.items() if not name.endswith("_s")} for row in rows]


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Assert that two nested values are equal, tensors to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert a.equal(b), where
    else:
        assert a == b, where


SMALL = "model.hidden=[32]"
KILLED = [
    ["model=cnn", "model.widths=[4,8]", "model.strides=[2,2]", "data/mix=mixup"],  # dropout, batch norm, mixing
    ["optimizer=momentum", SMALL, "scheduler=plateau", "scheduler.patience=0", "scheduler.monitor=val/acc"],
    ["optimizer=muon", SMALL, "scheduler=cosine", "scheduler.warmup=0.2", "+callbacks=ema"],
    ["optimizer=schedule_free_adamw", SMALL, "scheduler=none", "trainer.accumulate_grad_batches=3"],
    ["optimizer=lion", SMALL, "scheduler=wsd", "trainer.val_check_interval=0.5", "+callbacks=early_stopping"],
]


@pytest.fixture(scope="module", params=KILLED, ids=lambda overrides: overrides[0])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A run's overrides, and the folder of one that was not killed."""
    sparse = "callbacks.diagnosis.every_n_steps=3"  # so that there are losses between its rows at most checkpoints
    overrides = [*THREE, *request.param, "callbacks.last_checkpoint.every_n_steps=1", sparse]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        folder = tmp_path_factory.mktemp("undisturbed") / "whole"
        fit(folder, *overrides)
    return overrides, folder


@pytest.mark.parametrize("step", [5, 16])  # of 24: within the first epoch, at the end of the second
def test_a_killed_run_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: tuple[list[str], Path], step: int
) -> None:
    (overrides, whole), killed = undisturbed, tmp_path / "killed"
    steps = last(whole)["global_step"]
    fit_killed(monkeypatch, step * steps // 24, killed, *overrides)
    assert json.loads((killed / "result.json").read_text())["status"] == "failed"
    engine.train(killed)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "ranks", "epochs", "global_step"):
        assert_same(last(killed)[part], last(whole)[part], part)
    assert curves(killed) == curves(whole)
    assert (killed / "diagnosis.json").read_text() == (whole / "diagnosis.json").read_text()
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    for result in results:
        del result["metrics"]["train/epoch_s"]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert (results[1]["status"], results[1]["best_epoch"]) == ("completed", results[0]["best_epoch"])
    assert sorted(p.name for p in (killed / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_run_killed_several_times_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*THREE, "callbacks.last_checkpoint.every_n_steps=1"]
    fit(tmp_path / "whole", *overrides)
    for step in (8, 13, 16, 17, 23, 24):
        fit_killed(monkeypatch, step, tmp_path / "killed", *overrides)
    engine.train(tmp_path / "killed")
    assert_same(last(tmp_path / "killed")["state_dict"], last(tmp_path / "whole")["state_dict"])
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")


@pytest.mark.parametrize("step", [5, 8, 11])
def test_a_run_with_max_steps_ends_there_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    overrides = [*THREE, "trainer.max_steps=12", "callbacks.last_checkpoint.every_n_steps=1"]
    fit(tmp_path / "whole", *overrides)
    assert last(tmp_path / "whole")["global_step"] == 12
    fit_killed(monkeypatch, step, tmp_path / "killed", *overrides)
    engine.train(tmp_path / "killed")
    assert_same(last(tmp_path / "killed")["state_dict"], last(tmp_path / "whole")["state_dict"])
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")


def test_two_ranks_resume_to_the_same_bits(tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle of an epoch; each rank has its own random numbers."""
    overrides = [*QUICK, *THREE, "trainer=ddp_sim", "model=cnn", "model.widths=[4]", "model.strides=[2]"]
    overrides += ["data.batch_size=32", "callbacks.last_checkpoint.every_n_steps=2"]
    overrides += ["callbacks.diagnosis.every_n_steps=3"]
    for name, moments in (("whole", {}), ("killed", {"die": {"step": 21}})):  # before step 11, which is moment 21
        folder = runs.create(tmp_path / name, compose(*overrides), [])
        moments |= {"folder": str(folder), "out": str(tmp_path / f"{name}.said")}
        done = forks.run(["-m", "lossfit", str(folder)], moments=moments, ranks=1)
        assert done.returncode == (-9 if name == "killed" else 0), done.stderr
    assert last(tmp_path / "killed")["global_step"] == 10
    copy = shutil.copytree(tmp_path / "killed", tmp_path / "copy")
    config = (copy / "config.yaml").read_text().replace("devices: 2", "devices: 1")
    (copy / "config.yaml").write_text(config.replace("strategy: ddp", "strategy: auto"))
    with pytest.raises(UserError, match="was begun by 2 processes, which decides its steps, and there are 1 now"):
        engine.train(copy)
    done = forks.run(["-m", "lossfit", str(folder)], ranks=1)
    assert done.returncode == 0, done.stderr
    assert "Going on after 1 epochs and 10 steps" in done.stdout
    for part in ("state_dict", "optimizer_states", "ranks"):
        assert_same(last(tmp_path / "killed")[part], last(tmp_path / "whole")[part], part)
    assert len(last(folder)["ranks"]) == 2
    assert curves(tmp_path / "killed") == curves(tmp_path / "whole")
    assert (tmp_path / "killed" / "diagnosis.json").read_text() == (tmp_path / "whole" / "diagnosis.json").read_text()


def test_a_stopped_run_prints_how_to_resume_and_resumes(train_py: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["train.py", *QUICK, "trainer.max_epochs=100000", f"hydra.run.dir={folder}"]
    process = forks.Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2"):
            process.terminate()
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == f"Interrupted. To go on: python train.py resume={folder}\n"
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "interrupted"
    epochs = last(folder)["epochs"]
    done = train_py(f"resume={folder}", f"trainer.max_epochs={epochs + 2}")
    assert done.returncode == 0, done.stderr
    assert f"Going on after {epochs} epochs" in done.stdout
    assert f"max_epochs was 100000: the schedule is fitted anew to {epochs + 2}" in done.stdout
    assert [int(row["epoch"]) for row in curves(folder)] == list(range(1, epochs + 3))
    assert runs.status(folder) == "completed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_a_run_after_its_step_and_it_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    training_step = TrainingModule.training_step

    def signalled(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.trainer.global_step == 11:
            os.kill(os.getpid(), number)
        return training_step(self, batch, batch_idx)

    before = {stop: signal.getsignal(stop) for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", signalled)
        with pytest.raises(Interrupted, match=f"python train.py resume={tmp_path}/run"):
            fit(tmp_path / "run", *THREE)
    assert {stop: signal.getsignal(stop) for stop in before} == before
    assert runs.status(tmp_path / "run") == "interrupted"
    assert last(tmp_path / "run")["global_step"] == 12
    engine.train(tmp_path / "run")
    fit(tmp_path / "whole", *THREE)
    assert_same(last(tmp_path / "run")["state_dict"], last(tmp_path / "whole")["state_dict"])
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


class SignalledStream(io.RawIOBase):
    """A console to which SIGINT is sent while it writes the line of the first epoch."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        first = b"epoch 1" in bytes(data)
        self.written += bytes(data)
        if first:
            os.kill(os.getpid(), signal.SIGINT)
        return len(data)


def test_a_signal_during_the_write_of_a_line_stops_the_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SignalledStream()
    console = io.TextIOWrapper(io.BufferedWriter(stream), encoding="utf-8")
    monkeypatch.setattr(rich.get_console(), "_file", console)  # `file` would come back as this test's stdout
    with pytest.raises(Interrupted):
        fit(tmp_path / "run", *THREE, "model=linear")
    assert b"Stopping after this step (SIGINT)" in stream.written
    assert runs.status(tmp_path / "run") == "interrupted"


def test_more_epochs_refit_the_schedule(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    fit(folder, "scheduler=linear", "logger=csv")
    assert float(curves(folder)[0]["train/lr"]) < 0.26 * 4e-3
    engine.resume(folder, compose(*QUICK, "trainer.max_epochs=2"), [f"resume={folder}", "trainer.max_epochs=2"])
    fit(tmp_path / "whole", "scheduler=linear", "logger=csv", "trainer.max_epochs=2")
    assert curves(folder)[1]["train/lr"] == curves(tmp_path / "whole")[1]["train/lr"]
    assert "trainer.max_epochs=2" in (folder / "overrides.yaml").read_text()
    assert runs.read_config(folder)["trainer"]["max_epochs"] == 2


def test_a_moved_folder_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(tmp_path / "whole", *THREE)
    fit_killed(monkeypatch, 16, tmp_path / "old", *THREE)
    shutil.move(tmp_path / "old", tmp_path / "new")
    engine.train(tmp_path / "new")
    assert not (tmp_path / "old").exists()
    assert_same(last(tmp_path / "new")["state_dict"], last(tmp_path / "whole")["state_dict"])
    best = [torch.load(tmp_path / name / "checkpoints/best.ckpt", weights_only=True) for name in ("new", "whole")]
    assert best[0]["epochs"] == best[1]["epochs"]


def test_a_run_named_by_a_relative_path_or_a_link_keeps_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_killed(monkeypatch, 16, tmp_path / "run", *THREE)
    checkpoint = last(tmp_path / "run")
    (best,) = (state for state in checkpoint["callbacks"].values() if "best_model_score" in state)
    best["kth_value"] = torch.tensor(2.0)  # beyond any accuracy
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], torch.tensor(2.0))
    torch.save(checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt")
    before = (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "link").symlink_to("run")
    engine.train(Path(os.path.relpath(tmp_path / "link")))
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes() == before


def test_a_run_that_stopped_early_is_complete(tmp_path: Path) -> None:
    early = ["+callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9"]
    fit(tmp_path / "run", *early, "trainer.max_epochs=9")
    epochs = last(tmp_path / "run")["epochs"]
    assert epochs == 2
    with pytest.raises(UserError, match="is complete after 2 epochs"):
        engine.train(tmp_path / "run")
    files.write_json(tmp_path / "run" / "result.json", {"status": "running"})  # as if killed during its test
    engine.train(tmp_path / "run")
    assert last(tmp_path / "run")["epochs"] == 2
    assert runs.status(tmp_path / "run") == "completed"


def test_a_run_killed_during_its_test_keeps_its_findings(tmp_path: Path) -> None:
    fit(tmp_path / "run", "model=linear", "optimizer=adam", "optimizer.lr=10", "trainer.max_epochs=2")
    found = runs.read_result(tmp_path / "run")["findings"]
    assert found, "or the test says nothing"
    files.write_json(tmp_path / "run" / "result.json", {"status": "running"})
    engine.train(tmp_path / "run")
    assert runs.read_result(tmp_path / "run")["findings"] == found


def test_a_run_killed_before_its_first_last_checkpoint_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_killed(monkeypatch, 8, tmp_path / "run", *THREE)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
    engine.train(tmp_path / "run")
    fit(tmp_path / "whole", *THREE)
    assert_same(last(tmp_path / "run")["state_dict"], last(tmp_path / "whole")["state_dict"])
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


def test_a_torn_checkpoint_is_refused_and_best_can_be_resumed_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_killed(monkeypatch, 16, tmp_path / "run", *THREE)
    torn = tmp_path / "run" / "checkpoints" / "last.ckpt"
    torn.write_bytes(torn.read_bytes()[:10000])
    best = torn.with_name("best.ckpt")
    with pytest.raises(UserError, match=rf"{torn} is torn, or no checkpoint; {best}, after \d epochs, is whole"):
        engine.train(tmp_path / "run")
    engine.resume(best, compose(*QUICK), [f"resume={best}"])
    (replaced,) = torn.parent.glob("last.ckpt.replaced_*")
    assert replaced.stat().st_size == 10000
    fit(tmp_path / "whole", *THREE)
    assert_same(last(tmp_path / "run")["state_dict"], last(tmp_path / "whole")["state_dict"])
    assert curves(tmp_path / "run") == curves(tmp_path / "whole")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["resume=nowhere"], "resume=nowhere: no such run folder or checkpoint of one"),
        (["resume=RUN"], "RUN is complete after 2 epochs: trainer.max_epochs=4 would train it on"),
        (["resume=RUN", "loss=focal"], "loss=focal cannot change within a run: only trainer.max_epochs,"),
        (["resume=RUN", "~test"], "~test cannot change within a run: only trainer.max_epochs,"),
        (["resume=RUN", "~trainer.max_epochs"], "~trainer.max_epochs cannot change within a run: only"),
        (["resume=RUN", "trainer.max_epochs=3", "trainer.accelerator=tpu"], "trainer.accelerator=tpu"),
        (["resume=RUN", "trainer.max_epochs=1"], "trainer.max_epochs=1: RUN has trained 2 epochs already"),
        (["resume=RUN/checkpoints/best"], "resume=RUN/checkpoints/best: no such run folder or checkpoint of one"),
    ],
)
def test_what_cannot_be_resumed_says_why_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, given: list[str], message: str
) -> None:
    fit(tmp_path / "run", "trainer.max_epochs=2")
    before = {p: p.read_bytes() for p in sorted((tmp_path / "run").rglob("*")) if p.is_file()}
    arguments = [argument.replace("RUN", str(tmp_path / "run")) for argument in given]
    monkeypatch.chdir(tmp_path)
    status, said = command("train.py", *arguments)
    assert status == 2
    assert message.replace("RUN", str(tmp_path / "run")) in said
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in before} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("metrics.csv", "mkfifo", "is not a regular file: move it away"),
        ("train.log", "mkfifo", "is not a regular file: move it away"),
        ("result.json", "mkdir", "is not a regular file: move it away"),
        ("checkpoints/best.ckpt", "mkdir", "is not a regular file: move it away"),
        ("overrides.yaml", "mkfifo", "is not a regular file: move it away"),
        ("overrides.yaml", "mknod", "must hold a list of overrides"),
        ("config.yaml", "mkfifo", "config.yaml is not a regular file"),
    ],
)
def test_what_is_in_the_place_of_a_runs_file_is_refused_and_nothing_changed(
    tmp_path: Path, command: Command, name: str, make: str, reason: str
) -> None:
    run = tmp_path / "run"
    fit(run)
    (run / name).unlink()
    getattr(os, make)(run / name)
    before = {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}
    status, said = command("train.py", f"resume={run}", "trainer.max_epochs=2")
    assert status == 2
    assert str(run / name) in said, said
    assert reason in said
    assert "Traceback" not in said
    assert {p: p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()} == before


def test_a_full_disk_fails_the_run_and_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = torch.save, []

    def full(checkpoint: Any, stream: Any) -> None:
        calls.append(1)
        if len(calls) == 4:  # best and last of each epoch
            stream.write(b"half a checkpoint")
            raise OSError(28, "No space left on device")
        save(checkpoint, stream)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(RunError, match=r"No space left on device.*resume="):
            fit(tmp_path / "run", *THREE)
    assert runs.status(tmp_path / "run") == "failed"
    engine.train(tmp_path / "run")
    fit(tmp_path / "whole", *THREE)
    assert_same(last(tmp_path / "run")["state_dict"], last(tmp_path / "whole")["state_dict"])


def test_a_run_whose_model_was_changed_in_the_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changing.py").write_text(
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fit(tmp_path / "run", "model=custom", "model.function=changing.net")
    import changing

    wider = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 16), torch.nn.Linear(16, 10))
    monkeypatch.setattr(changing, "net", lambda num_classes: wider)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"the model has changed: 1\.weight has the shape \(16, 784\), and \(10, 784\)"):
        engine.resume(tmp_path / "run", compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_users_model_with_extra_state_and_lazy_layers_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unusual.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))\n"
        "        self.frozen = nn.Parameter(torch.full((2,), float('-inf')), requires_grad=False)\n"
        "    def get_extra_state(self): return {'version': 2}\n"
        "    def set_extra_state(self, state): assert state == {'version': 2}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    states = whole_and_resumed(tmp_path, "model=custom", "model.function=unusual.Net", "scheduler=none")
    assert states[0].pop("model._extra_state") == states[1].pop("model._extra_state") == {"version": 2}
    assert_same(states[1], states[0])


def test_init_from_starts_with_the_weights_that_fit_and_names_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path / "old", "model.hidden=[16]")
    weights = {n.removeprefix("model."): v for n, v in last(tmp_path / "old")["state_dict"].items()}
    config = compose(*QUICK, "model.hidden=[16]", f"init_from={tmp_path}/old")
    module = build_run(config, tmp_path / "new").module
    assert_same(dict(module.model.state_dict()), weights)
    wider = build_run(compose(*QUICK, "model.hidden=[16]"), tmp_path / "new").module.model
    last_layer = wider[-1]
    wider[-1] = torch.nn.Linear(16, 3)
    start = of_another_run(wider, tmp_path / "old")
    wider.load_state_dict(start.weights, strict=False)
    assert "anew, since they differ in name or shape: 3.weight, 3.bias" in start.note
    assert wider[1].weight.equal(weights["1.weight"])
    assert last_layer.weight.shape == (10, 16)
    with pytest.raises(ConfigError, match="none of its weights fit this model"):
        build_run(compose(*QUICK, "model=linear", f"init_from={tmp_path}/old"), tmp_path / "new")
    with pytest.raises(UserError, match="nowhere: no such run folder or checkpoint"):
        build_run(compose(*QUICK, "init_from=nowhere"), tmp_path / "new")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_model_path", "local://VICTIM"),
        ("kth_best_model_path", "VICTIM/file.ckpt"),
        ("best_k_models", {"VICTIM/file.ckpt": 0.0}),
        ("best_k_models", {"RUN/checkpoints/../../victim/file.ckpt": 0.0}),
        ("dirpath", None),
    ],
)
def test_a_checkpoint_names_no_file_outside_of_its_run(tmp_path: Path, name: str, value: object) -> None:
    """Lightning deletes the files that a checkpoint says it keeps, folders and remote ones too."""
    folder, victim = tmp_path / "run", tmp_path / "victim"
    fit(folder, "model=linear")
    victim.mkdir()
    (victim / "file.ckpt").write_text("somebody's")
    checkpoint = last(folder)
    text = json.dumps(value).replace("VICTIM", str(victim)).replace("RUN", str(folder))
    (state,) = (state for state in checkpoint["callbacks"].values() if "best_k_models" in state)
    state[name] = json.loads(text)
    if name == "dirpath":
        del state[name]
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError, match=r"last\.ckpt cannot be resumed: it names the file .* outside of its own folder"
    ):
        engine.resume(folder, compose(*QUICK, "trainer.max_epochs=2"), ["trainer.max_epochs=2"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert (victim / "file.ckpt").exists()


def test_only_checkpoint_files_are_deleted(tmp_path: Path) -> None:
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "old.ckpt").touch()
    for path in (
        tmp_path / "folder.ckpt",
        tmp_path / "notes.txt",
        f"local://{tmp_path}/folder.ckpt",
        tmp_path / "old.ckpt",
    ):
        AtomicCheckpointIO().remove_checkpoint(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.ckpt", "notes.txt"]
