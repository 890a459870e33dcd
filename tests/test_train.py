"""train.py as a user meets it: help, mistakes, runs at the same time, sweeps, distributed runs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lossfit import runs
from lossfit.data import InMemoryDataModule
from lossfit.training.build import build_run
from tests import forks
from tests.conftest import QUICK, ROOT, Command, compose

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], r"(?s)optimizer=.*adam  .*\n.*Groups|Groups.*optimizer=\n.*  adam  "),
        (["--cfg", "job"], r"_target_: lossfit\.models\.airbench\.Airbench"),
        (["optimizer=adm"], r"Error: optimizer=adm: no such option \(did you mean 'adam'\?\)"),
        (["optimizer.lrr=1"], r"Error: optimizer\.lrr: no such key \(did you mean 'lr'\?\)"),
        (["optimzer=adam"], r"Error: optimzer: no such key \(did you mean 'optimizer'\?\)"),
        (["-m", "optimizer=adam,sgdd"], r"Error: optimizer=sgdd: no such option \(did you mean 'sgd'\?\)"),
        (["optimizer.lr"], r"Error: cannot read 'optimizer\.lr' \(missing EQUAL"),
        (["trainer.max_epochs=[1"], r"Error: cannot read 'trainer\.max_epochs=\[1'"),
    ],
)
def test_help_and_mistakes_are_answered_without_importing_torch(arguments: list[str], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    imports = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    said = done.stdout + "\n".join(line for line in done.stderr.splitlines() if line not in imports)
    assert re.search(expected, said), said
    assert "Traceback" not in said
    mistake = expected.startswith("Error")
    assert done.returncode == (2 if mistake else 0)
    if mistake:
        assert len(said.strip().splitlines()) <= 3
    loaded = {line.split("|")[-1].strip() for line in imports}
    assert "hydra" in loaded
    assert not loaded & {"torch", "lightning", "torchvision", "matplotlib"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optimizer.lr=fast"], "optimizer.lr must be a number, got 'fast'"),
        (["loss=custom"], "loss.function has no value yet: give loss.function=VALUE"),
        (["+colour=red"], "colour: no such key"),
        (["loss=focal", "loss.gamma=-1"], "loss.gamma must be >= 0, got -1"),
        (["data.dir=/none", "data=sample"], "data.dir=/none"),
        (["hydra.run.dir=/proc/none"], "cannot use /proc/none: No such file or directory; choose another folder"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_few_lines_without_a_traceback(
    command: Command, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, said = command("train.py", f"hydra.run.dir={tmp_path}/run", *QUICK, *arguments)
    assert status == 2
    assert expected in said
    assert "Traceback" not in said


def test_hydra_full_error_shows_the_traceback(train_py: Run) -> None:
    done = train_py(*QUICK, "optimizer.lr=-1", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "Invalid learning rate: -1" in done.stderr
    command = [sys.executable, "train.py", "optimizer.lr=fast"]  # refused before torch is imported
    env = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, True)


def test_a_folder_that_cannot_be_written_is_named(train_py: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = train_py(*QUICK, f"hydra.run.dir={tmp_path}/file/run")
    assert done.returncode == 2
    assert f"cannot use {tmp_path}/file/run: Not a directory" in done.stderr


def test_two_runs_started_together_get_two_folders_and_print_them(tmp_path: Path) -> None:
    command = [str(ROOT / "train.py"), *QUICK, f"data.dir={ROOT}/tests/data", "trainer.max_epochs=13"]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    started = [forks.Forked(command, cwd=tmp_path, **streams) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    folders = [re.search(r"Run folder +(\S+)", text)[1] for text in said]  # type: ignore[index]
    assert len(set(folders)) == 2
    assert sorted(map(str, (tmp_path / "logs/train/runs").iterdir())) == sorted(str(tmp_path / f) for f in folders)
    for text, folder in zip(said, folders, strict=True):
        accuracy = json.loads((tmp_path / folder / "result.json").read_text())["metrics"]["test/acc"]
        assert f"Test accuracy {accuracy:.4f}" in text
        assert text.rstrip().endswith(f"tensorboard --logdir {folder}")
        assert len(text.splitlines()) == 17, "one line of summary, one an epoch, three at the end"
        assert (tmp_path / folder / "train.log").read_text().count("\n") == 17


def test_a_sweep_trains_every_combination(train_py: Run, tmp_path: Path) -> None:
    done = train_py("-m", *QUICK, "optimizer=sgd,adam", "loss=mse,focal", f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stderr
    results = [json.loads((tmp_path / "sweep" / str(job) / "result.json").read_text()) for job in range(4)]
    assert [r["status"] for r in results] == ["completed"] * 4
    pairs = {(r["choices"]["optimizer"], r["choices"]["loss"]) for r in results}
    assert pairs == {("sgd", "mse"), ("sgd", "focal"), ("adam", "mse"), ("adam", "focal")}


def test_ctrl_c_writes_a_result_and_exits_with_130(tmp_path: Path) -> None:
    command = ["train.py", *QUICK, "trainer.max_epochs=100000", f"hydra.run.dir={tmp_path}/run"]
    process = forks.Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3"):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == f"Interrupted. To go on: python train.py resume={tmp_path}/run\n"
    assert "Traceback" not in said
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"


def test_two_ranks_share_one_folder_and_have_the_metrics_of_one_process(train_py: Run, tmp_path: Path) -> None:
    done = train_py(
        *QUICK,
        "trainer=ddp_sim",
        "model=cnn",
        "model.widths=[4,8]",
        "model.strides=[2,2]",
        "trainer.max_epochs=2",
    )
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["steps"] == 4  # 500 samples, 2 x 128 a step, two epochs

    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    config = checkpoint["hyper_parameters"]["config"]
    config["trainer"] |= {"devices": 1, "strategy": "auto"}
    run = build_run(config, tmp_path / "alone")
    data, module, trainer = run.data, run.module, run.trainer
    assert isinstance(data, InMemoryDataModule)
    module.load_state_dict(checkpoint["state_dict"])
    (alone,) = trainer.test(module, data, verbose=False)
    (val,) = trainer.validate(module, data, verbose=False)
    for name, value in (alone | val).items():
        exact = 0 if name.endswith("acc") else 1e-6
        assert found["metrics"][name] == pytest.approx(value, rel=exact or 1e-7), name


@pytest.mark.parametrize("how", ["os._exit(7)", "raise ValueError('out of cheese')"])
def test_the_run_fails_if_a_rank_fails(tmp_path: Path, how: str) -> None:
    (tmp_path / "failing.py").write_text(
        "import os, torch.distributed, torch.nn.functional as F\n"
        "def loss(logits, target):\n"
        "    training = torch.distributed.is_initialized() and logits.requires_grad  # not in the trial step\n"
        f"    if training and os.environ.get('LOCAL_RANK') == '1': {how}\n"
        "    return F.cross_entropy(logits, target)\n"
    )
    options = ["trainer=ddp_sim", "loss=custom", "loss.function=failing.loss", f"hydra.run.dir={tmp_path}/run"]
    done = forks.run(["train.py", *QUICK, *options], env={"PYTHONPATH": str(tmp_path)}, ranks=1)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert ("out of cheese" in done.stderr) == how.startswith("raise")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "failed"


def test_a_rank_that_never_joins_ends_the_run_with_a_result(tmp_path: Path) -> None:
    """Rank 0 waits in the rendezvous, where no signal reaches it."""
    (tmp_path / "sitecustomize.py").write_text("import os\nif os.environ.get('LOCAL_RANK') == '1': os._exit(7)\n")
    (tmp_path / "impatient.py").write_text(
        "import sys\nfrom lossfit.training import engine, rank_launcher\nfrom pathlib import Path\n"
        "rank_launcher.GRACE = 2\nengine.train(Path(sys.argv[1]))\n"
    )
    folder = runs.create(tmp_path / "run", compose(*QUICK, "trainer=ddp_sim"), [])
    done = forks.run([str(tmp_path / "impatient.py"), str(folder)], env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1, done.stderr
    found = json.loads((folder / "result.json").read_text())
    assert (found["status"], found["reason"]) == ("failed", "rank 1 ended with status 7")


def test_a_run_folder_is_enough_to_train(tmp_path: Path) -> None:
    folder = runs.create(tmp_path / "run", compose(*QUICK), [])
    command = [sys.executable, "-m", "lossfit", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Test accuracy" in done.stdout
    again = forks.run(command[1:])
    assert again.returncode == 2
    assert "run is complete after 1 epochs: trainer.max_epochs=2 would train it on" in again.stderr
    nowhere = forks.run([*command[1:-1], "nowhere"])
    assert (nowhere.returncode, "nowhere is no run folder" in nowhere.stderr) == (2, True)
