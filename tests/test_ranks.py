"""The ranks of a run, started by rank 0, by torchrun or by srun, on one node or two."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lossfit import runs
from lossfit.errors import UserError
from lossfit.system.ranks import started_rank
from tests import forks
from tests.conftest import QUICK, ROOT, Command, compose, fit

TORCHRUN = ["-m", "torch.distributed.run"]
TWO = [*QUICK, "trainer=ddp_sim", "trainer.max_epochs=2"]
SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")


def start(*command: str, ranks: int = 0, **env: str) -> forks.Forked:
    return forks.Forked(command, ranks=ranks, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def set_environment(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def processes_of(folder: Path) -> set[int]:
    """Return the ids of the processes whose command line contains a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder) in (process / "cmdline").read_text():
                found.add(int(process.name))
        except OSError:  # it has just ended
            continue
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux a process can be killed with its parent")


@linux
def test_no_rank_outlives_rank_0(tmp_path: Path) -> None:
    folder = runs.create(tmp_path / "run", compose(*TWO, "trainer.max_epochs=100000"), [])
    process = start("-m", "lossfit", str(folder))
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("epoch 2"):
            break
    ranks = processes_of(folder) - {process.pid}
    assert len(ranks) == 1, said
    end = os.pidfd_open(ranks.pop())
    process.kill()
    process.communicate()
    assert select.select([end], [], [], 60)[0], "a rank still runs"
    os.close(end)
    assert processes_of(folder) == set()


RANK = "from lossfit import cli; cli.check_ranks(['hydra.run.dir=x']); print('ready', flush=True); input()"


@linux
def test_no_rank_of_train_py_outlives_torchrun() -> None:
    agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {RANK!r}])"
    keyboard, hand = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", agent],
        env={**os.environ, "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, stdin=keyboard, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    assert select.select([process.stdout], [], [], 60)[0], "the rank still runs"
    assert process.stdout.read() == ""  # its other end is closed
    os.close(keyboard)
    os.close(hand)


@linux
def test_a_rank_whose_parent_has_ended_ends_at_once() -> None:
    process = start("-c", RANK, LOCAL_RANK="1", WORLD_SIZE="2", LOSSFIT_STARTER="-1")
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (-signal.SIGKILL, "")


def test_two_nodes_under_torchrun_have_the_metrics_of_two_ranks_on_one_node(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [start("train.py", *TWO, f"hydra.run.dir={tmp_path}/one", ranks=1)]
    nodes = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1"]
    nodes += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    options = [*TWO, "trainer.devices=1", "trainer.num_nodes=2", f"hydra.run.dir={tmp_path}/two"]
    for node in ("0", "1"):  # NODE_RANK=7: some clusters set it to another number than torchrun's
        started.append(start(*nodes, "--node-rank", node, "train.py", *options, NODE_RANK="7"))
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert ("Test accuracy" in said[1], "Test accuracy" in said[2]) == (True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two")]
    for result in results:
        del result["metrics"]["train/epoch_s"]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert (results[1]["status"], results[1]["steps"]) == ("completed", 4)


def test_a_second_signal_ends_a_rank_in_a_collective(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "import os, signal, torch.nn.functional as F\n"
        "def loss(logits, target):\n"
        "    if 'LOCAL_RANK' in os.environ and os.environ['LOCAL_RANK'] == '0' and logits.requires_grad:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return F.cross_entropy(logits, target)\n"
    )
    options = [*TWO, "loss=custom", "loss.function=twice.loss", f"hydra.run.dir={tmp_path}/run"]
    process = start("train.py", *options, PYTHONPATH=os.pathsep.join([*sys.path, str(tmp_path)]))
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "a second signal stops at once" in said
    assert runs.status(tmp_path / "run") == "interrupted"


def test_ctrl_c_while_the_ranks_start_interrupts_the_run(tmp_path: Path) -> None:
    """Rank 1 is still building the run, and rank 0 waits for it in the rendezvous, where no signal reaches it."""
    (tmp_path / "early.py").write_text(
        "import os, signal, torch.nn.functional as F\n"
        "if os.environ.get('LOCAL_RANK') == '1': os.killpg(0, signal.SIGINT)\n"
        "loss = F.cross_entropy\n"
    )
    options = [*TWO, "loss=custom", "loss.function=early.loss", f"hydra.run.dir={tmp_path}/run"]
    path = os.pathsep.join([*sys.path, str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "train.py", *options], cwd=ROOT, env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.endswith(f"Interrupted. To go on: python train.py resume={tmp_path}/run\n")
    assert said.count("Interrupted") == 1
    assert runs.status(tmp_path / "run") == "interrupted"


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "1", "RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        ({"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}, None),
        (SLURM, (1, 2)),
        ({**SLURM, "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "4"}, (0, 4)),  # srun torchrun
        ({**SLURM, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),  # python within sbatch
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, None),
    ],
)
def test_the_environment_says_which_rank_was_started(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: Any
) -> None:
    set_environment(monkeypatch, env)
    assert started_rank() == expected


@pytest.mark.parametrize("env", [SLURM, {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}], ids=["srun", "torchrun"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "hydra.run.dir has no value, and several ranks need one: give hydra.run.dir=FOLDER to them all"),
        (["-m", "seed=1,2", "hydra.run.dir=x"], "-m: start a sweep as one process, without torchrun or srun"),
        (["resume=RUN", "hydra.run.dir=x"], "resume=RUN: several ranks resume a run with `-m lossfit FOLDER`"),
    ],
)
def test_commands_that_ranks_cannot_share_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
    env: dict[str, str],
    arguments: list[str],
    message: str,
) -> None:
    set_environment(monkeypatch, env)
    monkeypatch.chdir(tmp_path)
    status, said = command("train.py", *arguments)
    assert status == 2
    assert said.startswith(f"Error: {message}")
    assert len(said.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_other_ranks_stop_waiting_for_a_folder_that_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lossfit.runs.folder.PATIENCE", 0.0)
    with pytest.raises(UserError, match="rank 0 has made no run there in 0 s; give all ranks the same folder"):
        runs.wait_for(tmp_path)
    (tmp_path / "config.yaml").touch()
    assert runs.wait_for(tmp_path) == tmp_path


def test_a_number_of_ranks_that_differs_from_the_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, {})
    with pytest.raises(UserError, match=r"num_nodes=2: the other nodes' ranks .* torchrun --nnodes 2 .*-m lossfit"):
        fit(tmp_path / "nodes", "trainer=ddp_sim", "trainer.num_nodes=2")
    set_environment(monkeypatch, {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"})
    with pytest.raises(UserError, match=r"is 1, and 2 ranks were started: set trainer.strategy=ddp"):
        fit(tmp_path / "ranks")
