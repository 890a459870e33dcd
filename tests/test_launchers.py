"""Launchers of other packages train a sweep's run folders: SLURM (by a stand-in), submitit on this machine, Ray."""

import os
import re
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from lossfit import runs
from lossfit.errors import UserError
from lossfit.sweeps import resources
from tests.test_sweeps import TROUBLE, Command, results, swept

DDP = ["data=sample", "model=mlp", "trainer=ddp_sim"]
SLOW = """
import time, torch.nn.functional as F

def loss(logits, target):
    time.sleep(0.05)
    return F.cross_entropy(logits, target)
"""


def importing(folder: Path) -> dict[str, str]:
    """The environment in which jobs can import what is in a folder."""
    return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}


def test_slurm_starts_the_ranks_and_a_job_at_its_time_limit_is_resumed(slurm: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    (tmp_path / "slow.py").write_text(SLOW)
    options = [*DDP, "trainer.max_epochs=6", "loss=custom", "loss.function=slow.loss"]
    by_slurm = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=10"]
    sweep, alone = tmp_path / "sweep", tmp_path / "alone" / "1"
    done = swept(
        *("-m", *options, *by_slurm, "optimizer=sgd,adam", f"hydra.sweep.dir={sweep}"),
        **slurm, **importing(tmp_path),
        FAKE_SLURM_TIME_LIMIT="1", FAKE_SLURM_WHEN=f"{sweep}/1/checkpoints/last.ckpt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in sweep.iterdir()) == [".lock", ".signature", ".submitit", "0", "1", "sweep.yaml"]
    logs = [(sweep / job / "train.log").read_text() for job in ("0", "1")]
    assert "this job is timed-out" in logs[1]
    assert all("| 2 x cpu," in log for log in logs)
    assert "Going on after" not in logs[0]
    assert logs[1].count("Going on after") == 1
    assert len((tmp_path / "slurm" / "requeued").read_text().split()) == 1, "by submitit, and not by Lightning too"

    done = swept(*options, "optimizer=adam", f"hydra.run.dir={alone}", ranks=1, **importing(tmp_path))
    assert done.returncode == 0, done.stderr
    assert runs.read_result(sweep / "1")["steps"] == runs.read_result(alone)["steps"]
    adam = " ".join(runs.read_overrides(sweep / "1"))
    assert results(sweep)[adam] == results(tmp_path / "alone")[" ".join(runs.read_overrides(alone))]


@pytest.mark.slow
def test_submitit_on_this_machine_leaves_the_ranks_to_lightning(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    sweep = tmp_path / "sweep"
    options = [*DDP, "trainer.max_epochs=1", "trainer.devices=1,2", "hydra/launcher=slurm_local"]
    done = swept("-m", *options, f"hydra.sweep.dir={sweep}")
    assert done.returncode == 0, done.stderr
    for job, ranks in (("0", 1), ("1", 2)):
        assert f"| {ranks} x cpu," in (sweep / job / "train.log").read_text()
    assert [runs.read_result(sweep / job)["steps"] for job in ("0", "1")] == [4, 2]
    assert sorted(path.name for path in sweep.iterdir()) == [".lock", ".signature", ".submitit", "0", "1", "sweep.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "plugin", "options"),
    [
        ("slurm_local", "submitit", []),
        ("ray_cluster", "ray", ["hydra.launcher.ray.init.num_cpus=4"]),
    ],
)
def test_a_job_that_is_killed_takes_no_other_with_it(
    launcher: str, plugin: str, options: list[str], tmp_path: Path
) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    (tmp_path / "trouble.py").write_text(TROUBLE)
    sweep = tmp_path / "sweep"
    options = [*options, *DDP, "trainer.max_epochs=2", "loss=custom", "loss.function=trouble.loss", "seed=5,1"]
    done = swept("-m", *options, f"hydra/launcher={launcher}", f"hydra.sweep.dir={sweep}", **importing(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"Error: 1 of 2 jobs failed or were not trained. To train only these: python train.py resume={sweep}" in (
        done.stderr
    )
    assert len(re.findall(r"^#0 seed=5: failed: .*(?:without a result|died)", done.stdout, flags=re.MULTILINE)) == 1
    assert [runs.status(sweep / job) for job in ("0", "1")] == ["failed", "completed"]
    assert (sweep / "0" / "train.log").read_text().count("| 2 x cpu,") == 1, "it was not tried again"


def test_what_a_job_asks_for() -> None:
    assert [resources.ranks(devices) for devices in (1, 4)] == [1, 4]
    assert [resources.gpus(accelerator, 4) for accelerator in ("gpu", "cuda", "cpu")] == [4, 4, None]
    for devices in ("auto", -1, [0, 1]):
        with pytest.raises(UserError, match=r"trainer\.devices=.*give a number, trainer\.devices=2"):
            resources.ranks(devices)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra/launcher=slurm", "trainer=auto,cpu"], "trainer.accelerator=auto: a job must ask for GPUs or not"),
        (["hydra/launcher=slurm", "trainer=ddp"], "trainer.devices=auto: only the node knows how many devices"),
        (["hydra/launcher=slurm", "hydra.launcher.partitions=gpu"], "hydra.launcher.partitions: no such key"),
        (["hydra/launcher=slum"], "hydra/launcher=slum: no such option (did you mean 'slurm'?)"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_made(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, said = command("train.py", "-m", "data=sample", "seed=1,2", *arguments, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 2, said
    assert expected in said
    assert len(said.splitlines()) == 2
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(("launcher", "extra"), [("slurm", "sweep"), ("slurm_local", "sweep"), ("ray_cluster", "ray")])
def test_a_package_that_is_not_there_is_named(
    launcher: str, extra: str, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = Plugins.instance().class_name_to_class
    here = {name: found for name, found in known.items() if "submitit" not in name and "ray" not in name}
    monkeypatch.setattr(Plugins.instance(), "class_name_to_class", here)
    options = [f"hydra/launcher={launcher}", "trainer=cpu", "seed=1,2", f"hydra.sweep.dir={tmp_path}/sweep"]
    status, said = command("train.py", "-m", *options)
    assert status == 2
    assert f'Error: hydra/launcher={launcher} needs another package: pip install -e ".[{extra}]"' in said
