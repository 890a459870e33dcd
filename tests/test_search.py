"""Searches with Optuna: what is sampled, pruned, reported to the study and resumed."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lossfit import runs
from lossfit.training import engine
from tests import forks
from tests.conftest import QUICK, ROOT, Command, compose
from tests.test_sweeps import processes_of, swept

optuna = pytest.importorskip("optuna")
OPTUNA = ["-m", *QUICK, "model=linear", "hydra/sweeper=optuna"]


def study_of(folder: Path) -> Any:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/study.db")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with conditional parameters, pruned after each epoch, two trials at once."""
    folder = tmp_path_factory.mktemp("searched") / "sweep"
    done = swept(
        *OPTUNA, "trainer.max_epochs=4", "optimizer=sgd,adam,momentum", "optimizer.momentum=interval(0.5,0.99)",
        "optimizer.betas=[0.9,0.999],[0.8,0.99]", "optimizer.lr=tag(log,interval(1e-5,1))", "loss=focal,mse",
        "loss.gamma=int(interval(0,3))", "data.batch_size=range(64,257,64)", "hydra.sweeper.n_trials=10",
        "hydra.sweeper.pruner.n_warmup_steps=0", "hydra.sweeper.pruner.n_startup_trials=2", "hydra.launcher.n_jobs=2",
        f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    (folder / "said").write_text(done.stdout)
    return folder


def test_a_parameter_is_sampled_only_if_the_sampled_options_have_it(searched: Path) -> None:
    trials = study_of(searched).get_trials()
    seen = {trial.params["optimizer"] for trial in trials} | {trial.params["loss"] for trial in trials}
    assert seen == {"sgd", "adam", "momentum", "focal", "mse"}, "or the test says nothing"
    for trial in trials:
        sampled = trial.params
        assert ("optimizer.momentum" in sampled) == (sampled["optimizer"] == "momentum")
        assert ("optimizer.betas" in sampled) == (sampled["optimizer"] == "adam")
        assert ("loss.gamma" in sampled) == (sampled["loss"] == "focal")
        config = runs.read_config(searched / str(trial.number))
        assert config["choices"]["optimizer"] == sampled["optimizer"]
        assert config["optimizer"]["lr"] == sampled["optimizer.lr"]
        assert config["data"]["batch_size"] == sampled["data.batch_size"]
        if "loss.gamma" in sampled:
            assert config["loss"]["gamma"] == sampled["loss.gamma"]
            assert isinstance(sampled["loss.gamma"], int)
        if "optimizer.betas" in sampled:
            assert config["optimizer"]["betas"] == json.loads(sampled["optimizer.betas"])
    assert {trial.params["data.batch_size"] for trial in trials} <= {64, 128, 192, 256}


def test_the_study_has_the_results_of_the_runs(searched: Path) -> None:
    study = study_of(searched)
    trials = study.get_trials()
    assert len(trials) == 10
    states = {trial.state.name for trial in trials}
    assert states == {"COMPLETE", "PRUNED"}
    for trial in trials:
        result = runs.read_result(searched / str(trial.number))
        assert result["status"] == {"COMPLETE": "completed", "PRUNED": "pruned"}[trial.state.name]
        if trial.state.name == "COMPLETE":
            assert trial.value == result["metrics"]["val/acc"]
            assert sorted(trial.intermediate_values) == [1, 2, 3, 4]
        else:
            assert max(trial.intermediate_values) == result["epochs"] < 4
            assert "test/acc" not in result["metrics"]
            assert result["reason"].startswith(f"pruned after epoch {result['epochs']}, when val/acc was behind")
    said = (searched / "said").read_text()
    assert f"Best: #{study.best_trial.number}, val/acc {study.best_value:.4f}: optimizer=" in said


def test_the_study_opens_in_optuna_as_the_guide_says(searched: Path) -> None:
    guide = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.+?)```", guide, flags=re.DOTALL)
    scope: dict[str, Any] = {"optuna": optuna}
    exec(code.replace("logs/train/multiruns/SWEEP", str(searched)), scope)
    assert len(scope["study"].trials) >= 10


def test_a_resumed_search_counts_the_trials_from_before(searched: Path) -> None:
    done = swept(f"resume={searched}", "hydra.sweeper.n_trials=12")
    assert done.returncode == 0, done.stderr
    assert "12 trials" in done.stdout
    assert "10 of them done already" in done.stdout
    assert [trial.number for trial in study_of(searched).get_trials()] == list(range(12))


def test_a_search_that_was_killed_resumes_its_trial(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = [
        *OPTUNA, "trainer.max_epochs=60", "optimizer.lr=interval(0.01,0.1)", "hydra.sweeper.n_trials=3",
        "hydra.sweeper.pruner=null",
    ]  # fmt: skip
    process = forks.Forked(["train.py", *command, f"hydra.sweep.dir={sweep}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("#0"):
            while not (sweep / "1" / "checkpoints" / "last.ckpt").exists():
                assert process.poll() is None
            process.kill()
            break
    process.communicate(timeout=60)
    assert runs.status(sweep / "1") != "completed", "or the test says nothing"

    done = swept(f"resume={sweep}")
    assert done.returncode == 0, done.stderr
    trials = study_of(sweep).get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert "Going on after" in (sweep / "1" / "console.log").read_text()


def test_a_pruned_distributed_trial_and_a_failed_one(tmp_path: Path) -> None:
    """Both ranks stop; a failed trial is replaced by a new one."""
    (tmp_path / "moody.py").write_text(
        "import torch, torch.nn.functional as F\n"
        "def loss(logits, target, t=1.0):\n"
        "    if 0.5 < t < 0.6 and len(logits) > 2: raise ValueError('out of cheese')\n"
        "    return F.cross_entropy(logits / t, target)\n"
    )
    done = swept(
        *OPTUNA, "trainer=ddp_sim", "trainer.max_epochs=3", "loss=custom", "loss.function=moody.loss",
        "+loss.options.t=0.55,1.0,9e9", "hydra.sweeper.n_trials=2", "hydra.sweeper.pruner.n_startup_trials=1",
        "hydra.sweeper.pruner.n_warmup_steps=0", "hydra.sweeper.sampler={_target_:optuna.samplers.RandomSampler}",
        f"hydra.sweep.dir={tmp_path}/sweep", ranks=1, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = study_of(tmp_path / "sweep").get_trials()
    states = {trial.params["+loss.options.t"]: trial.state.name for trial in trials}
    assert states == {"0.55": "FAIL", "1.0": "COMPLETE", "9000000000.0": "PRUNED"}
    assert "2 x cpu" in (tmp_path / "sweep" / "0" / "console.log").read_text()
    assert not processes_of(tmp_path)


def test_a_trial_that_a_finding_stops_is_pruned(tmp_path: Path) -> None:
    done = swept(
        "-m", *QUICK, "hydra/sweeper=optuna", "hydra.sweeper.pruner=null", "optimizer=adam", "optimizer.lr=0.001,10",
        "trainer.max_epochs=2", "data.batch_size=32", "callbacks.diagnosis.stop=[non_finite,divergence]",
        "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler={_target_:optuna.samplers.RandomSampler,seed:1}",
        f"hydra.sweep.dir={tmp_path}/sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = study_of(tmp_path / "sweep").get_trials()
    assert {trial.params["optimizer.lr"]: trial.state.name for trial in trials} == {"0.001": "COMPLETE", "10": "PRUNED"}
    stopped = min(trial.number for trial in trials if trial.params["optimizer.lr"] == "10")
    result = runs.read_result(tmp_path / "sweep" / str(stopped))
    assert result["status"] == "pruned"
    assert result["reason"].startswith("stopped by the diagnosis: divergence since ")
    assert "divergence" in result["findings"]
    assert result["epochs"] < 2
    assert "test/acc" not in result["metrics"]


def test_a_damaged_study_is_named(tmp_path: Path, command: Command) -> None:
    sweep = tmp_path / "sweep"
    typed = ["-m", *QUICK, "model=linear", "hydra/sweeper=optuna", "seed=1,2", "hydra.sweeper.n_trials=1"]
    assert command("train.py", *typed, f"hydra.sweep.dir={sweep}")[0] is None
    (sweep / "study.db").write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 20)
    before = (sweep / "study.db").read_bytes()
    status, said = command("train.py", f"resume={sweep}", "hydra.sweeper.n_trials=2")
    assert (status, f"{sweep}/study.db cannot be used: " in said) == (2, True), said
    assert len(said.splitlines()) < 4
    assert (sweep / "study.db").read_bytes() == before


MISTAKES: list[tuple[Sequence[str], str]] = [
    (["optimizer=sgd"], "hydra/sweeper=optuna has nothing to search"),
    (["loss.gama=interval(0,1)"], "loss.gama: no option of this search has this key"),
    (
        ["data.augment.translate=choice(0,1)"],
        "data.augment.translate: no option of this search has this key; options that have it: data/augment=mirror, ",
    ),
    (["optimizer.lr=fast,slow"], "optimizer.lr must be a number, got "),
    (["data.batch_size=interval(1,9)"], "data.batch_size must be a whole number"),
    (["optimizer.lr=tag(log,interval(0,1))"], "hydra.sweeper.params.optimizer.lr: `low > 0` must hold for `log=True`"),
    (["optimizer.lr=tag(lg,interval(1,2))"], "optimizer.lr: tag lg: intervals can have the tag log, no other"),
    (["seed=1,2", "hydra.sweeper.sampler={_target_:optuna.samplers.GridSampler}"], "for a grid take -m without it"),
    (["seed=1,2", "hydra.sweeper.metric=test/acc"], "nothing is tuned on the test split"),
    (["seed=1,2", "hydra.sweeper.metric=val/beauty"], "hydra.sweeper.metric=val/beauty: set hydra.sweeper.direction"),
    (["seed=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be a whole number >= 1, got 0"),
    (["seed=1,2", "hydra.sweeper.metric=[val/acc,val/nll]"], "Optuna prunes by one metric of each epoch"),
    (["seed=1,2", "hydra.sweeper.direction=up"], "hydra.sweeper.direction must be maximize or minimize, got up"),
    (["optimizer=interval(0,1)"], "hydra.sweeper.params.optimizer is a group, and needs options"),
]


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES)
def test_a_mistake_is_reported_before_anything_is_trained(
    command: Command, tmp_path: Path, arguments: Sequence[str], expected: str
) -> None:
    status, said = command("train.py", *OPTUNA, *arguments, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 2, said
    assert expected in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_repeated_sample_has_the_same_result_and_a_search_may_move(command: Command, tmp_path: Path) -> None:
    """Six trials of two possible jobs; then from another folder, and no longer by another metric."""
    done = swept(*OPTUNA, "seed=1,2", "hydra.sweeper.n_trials=6", f"hydra.sweep.dir={tmp_path}/old")
    assert done.returncode == 0, done.stderr
    trials = study_of(tmp_path / "old").get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert len({(trial.params["seed"], trial.value) for trial in trials}) == 2
    assert len(list((tmp_path / "old").glob("*/result.json"))) == 2
    (tmp_path / "old").rename(tmp_path / "new")
    done = swept(f"resume={tmp_path}/new", "hydra.sweeper.n_trials=7")
    assert done.returncode == 0, done.stderr
    assert len(study_of(tmp_path / "new").get_trials()) == 7
    status, said = command("train.py", f"resume={tmp_path}/new", "hydra.sweeper.metric=val/nll")
    assert status == 2
    assert "hydra.sweeper.metric and direction cannot change within a search" in said
    trial = next((tmp_path / "new").glob("*/result.json")).parent
    longer = "trainer.max_epochs=2"
    engine.resume(trial, compose(*QUICK, longer), [longer])
    assert runs.status(trial) == "completed", "a trial can be trained on"


@pytest.mark.parametrize(
    "options",
    [["search=recipe", "optimizer=adamw", "loss=focal"], ["search=recipe", "model=linear"], ["search=lr"]],
)
def test_presets_are_narrowed_by_what_is_typed(command: Command, options: list[str], tmp_path: Path) -> None:
    """Nothing is trained: the metric is refused after the space has been read."""
    status, said = command("train.py", "-m", *QUICK, *options, "seed=bad,worse", f"hydra.sweep.dir={tmp_path}/sweep")
    assert (status, "seed must be a whole number or null" in said) == (2, True), said
