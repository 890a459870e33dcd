"""A run whose loss becomes infinite or NaN ends as diverged, and its message says where and what to do."""

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lossfit import runs
from lossfit.compare import leaderboard, read
from lossfit.errors import Diverged, UserError
from lossfit.training import engine
from lossfit.training.build import build_run
from tests import forks
from tests.conftest import QUICK, Command, compose, fit, whole_and_resumed

TOO_LARGE = ["model=linear", "optimizer=sgd", "optimizer.lr=1e38", "scheduler=none"]


def test_the_message_names_the_step_the_learning_rate_and_the_remedy(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "run"
    status, said = command("train.py", *QUICK, *TOO_LARGE, f"hydra.run.dir={folder}")
    assert status == 1
    assert "The run diverged: the training loss was nan in step 2, epoch 1, with learning rate 1e+38" in said
    assert f"python scripts/lr_find.py {' '.join(QUICK)} model=linear" in said
    assert "optimizer.lr" not in said.partition("lr_find.py")[2]
    found = runs.read_result(folder)
    assert found["status"] == "diverged"
    assert found["reason"].startswith("the training loss was nan in step 2")
    assert not list((folder / "checkpoints").iterdir())
    with pytest.raises(UserError, match=r"diverged .*, and would again: start a new run with a smaller optimizer.lr"):
        engine.train(folder)


def test_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    """Weights become infinite in the last step of an epoch: its validation ends the run before anything is saved."""
    (tmp_path / "late.py").write_text(
        "import torch\nfrom lightning.pytorch import Callback\n"
        "class Poison(Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *rest):\n"
        "        if trainer.global_step == 8:\n"
        "            with torch.no_grad():\n                next(module.parameters()).fill_(float('inf'))\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        own = ["+callbacks=custom", "callbacks.custom.function=late.Poison"]
        for number, more in enumerate(
            [[], ["trainer.limit_val_batches=0", "callbacks=[custom,checkpoint]", "callbacks.checkpoint=null"]]
        ):
            folder = tmp_path / str(number)
            with pytest.raises(Diverged):
                fit(folder, "model=linear", "trainer.max_epochs=3", *(own if not more else own[1:]), *more)
            checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
            assert checkpoint["epochs"] == 1
            assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
            assert runs.read_result(folder)["status"] == "diverged"


def test_two_ranks_diverge_together(tmp_path: Path) -> None:
    run = f"hydra.run.dir={tmp_path}/run"
    done = forks.run(["train.py", *QUICK, *TOO_LARGE, "trainer=ddp_sim", run], ranks=1)
    assert (done.returncode, "The run diverged" in done.stderr) == (1, True), done.stderr
    assert runs.status(tmp_path / "run") == "diverged"


def test_compare_does_not_count_a_diverged_run(tmp_path: Path) -> None:
    fit(tmp_path / "good", "model=linear")
    with pytest.raises(Diverged):
        fit(tmp_path / "bad", *TOO_LARGE)
    board = leaderboard([read(tmp_path / name) for name in ("good", "bad")], "val/acc")
    assert [run.status for run in board.others] == ["diverged"]


def test_a_sweep_with_diverged_jobs_ends_and_does_not_repeat_them(
    tmp_path: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweep"
    typed = [*QUICK, "model=linear", "optimizer=sgd", "scheduler=none", "optimizer.lr=0.01,0.1,1e38", "seed=1,2"]
    assert command("train.py", "-m", *typed, f"hydra.sweep.dir={sweep}")[0] is None
    statuses = sorted(json.loads(path.read_text())["status"] for path in sweep.glob("*/result.json"))
    assert statuses == ["completed"] * 4 + ["diverged"] * 2
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/result.json")}
    assert command("train.py", f"resume={sweep}")[0] is None
    assert {path: path.stat().st_mtime_ns for path in sweep.glob("*/result.json")} == before, "none is trained again"


def test_a_search_learns_from_trials_that_diverge(tmp_path: Path, command: Command) -> None:
    optuna = pytest.importorskip("optuna")
    sweep = tmp_path / "sweep"
    typed = [*QUICK, "model=linear", "optimizer=sgd", "scheduler=none", "hydra/sweeper=optuna"]
    space = [
        "optimizer.lr=0.1,1e38",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.pruner=null",
        "hydra.sweeper.max_failures=0",
    ]
    random = ["hydra.sweeper.sampler={_target_:optuna.samplers.RandomSampler}"]
    status, said = command("train.py", "-m", *typed, *space, *random, f"hydra.sweep.dir={sweep}")
    assert status is None, said
    from lossfit import optuna_study as study

    trials = optuna.load_study(study_name=study.NAME, storage=study.storage(sweep)).trials
    states = {(trial.params["optimizer.lr"], trial.state.name) for trial in trials}
    assert states == {("0.1", "COMPLETE"), ("1e+38", "PRUNED")}


def test_the_last_window_of_accumulated_gradients_is_a_mean(tmp_path: Path) -> None:
    """One step an epoch over 4 batches of 125, asked for as windows of 1000 and of 4: the same training."""
    options = [
        "model=linear",
        "optimizer=sgd",
        "optimizer.lr=0.5",
        "data.batch_size=125",
        "data.augment=null",
        "scheduler=none",
    ]
    found = [fit(tmp_path / str(n), *options, f"trainer.accumulate_grad_batches={n}") for n in (4, 1000)]
    assert found[0]["train/loss"] == found[1]["train/loss"]
    assert found[0]["test/nll"] == found[1]["test/nll"]
    fit(tmp_path / "3", *options, "trainer.accumulate_grad_batches=3", "trainer.max_epochs=1")
    run = build_run(compose(*QUICK, *options), tmp_path / "by_hand")
    model, optimizer = run.module.model, run.module.optimizer(list(run.module.model.parameters()))
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    optimizer.param_groups[0]["weight_decay"] = 0.0
    batches = list(run.data.train_dataloader())
    decay = run.module.optimizer.keywords["weight_decay"]
    for window in (batches[:3], batches[3:]):
        optimizer.zero_grad()
        for images, target in window:
            (run.module.loss(model(images), target) / len(window)).backward()
        with torch.no_grad():
            model[1].weight.grad += decay * model[1].weight
        optimizer.step()
    state = torch.load(tmp_path / "3/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(state["model.1.weight"], model[1].weight.detach(), rtol=1e-5, atol=1e-6)


def test_double_precision_resumes_to_the_same_bits(tmp_path: Path) -> None:
    options = ["trainer.precision=64-true", "model=mlp", "model.hidden=[8]", "scheduler=none"]
    states = whole_and_resumed(tmp_path, *options)
    assert states[0]["model.1.weight"].dtype == torch.float64
    assert all(states[0][name].equal(states[1][name]) for name in states[0])


def test_hparams_have_the_metrics_of_result_json(tmp_path: Path) -> None:
    fit(tmp_path / "run", "trainer.max_epochs=3", "callbacks.checkpoint.mode=min")  # the worst epoch is kept
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    metrics = runs.read_result(tmp_path / "run")["metrics"]
    for name in ("val/acc", "val/nll", "test/acc", "test/nll"):
        (event,) = events.Scalars(f"result/{name}")
        assert event.value == pytest.approx(metrics[name])


def test_early_stopping_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    early = ["+callbacks=early_stopping", "callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=9"]
    fit(tmp_path / "run", *early, "trainer.max_epochs=9", "model=linear")
    found = runs.read_result(tmp_path / "run")
    assert found["status"] == "completed"
    assert "did not improve" in found["reason"]


def test_callbacks_that_replace_the_defaults_are_announced(tmp_path: Path) -> None:
    fit(tmp_path / "run", "callbacks=early_stopping", "model=linear")
    said = (tmp_path / "run" / "train.log").read_text()
    assert "WARNING" in said
    assert "callbacks=early_stopping replaces the default callbacks: without checkpoint best.ckpt is not kept" in said
    assert "without diagnosis nothing says what the run suffers from; +callbacks=early_stopping adds to them" in said
    with pytest.raises(UserError, match="is completed and has no checkpoint"):
        __import__("lossfit").load(tmp_path / "run")
