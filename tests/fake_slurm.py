#!/usr/bin/env python
"""Stands in for sbatch, srun, sacct, squeue and scontrol, by the name it is called by: jobs run on this machine.

FAKE_SLURM is a folder for what is known of the jobs. A job whose number in its array is in FAKE_SLURM_TIME_LIMIT gets
SIGUSR2 when a file that matches FAKE_SLURM_WHEN is there, as if its time was nearly over.
"""

import contextlib
import glob
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from forks import Forked  # beside this script

STATE = Path(os.environ["FAKE_SLURM"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def sbatch(script: str) -> None:
    """Start every job of the array, and return."""
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", Path(script).read_text(), flags=re.MULTILINE))
    last = re.match(r"0-(\d+)", shlex.split(options.get("array", "0-0"))[0])
    assert last is not None
    number = 10 * (int(time.time()) % 10**6)
    (STATE / f"{number}.sh").write_text(Path(script).read_text())
    for index in range(int(last[1]) + 1):
        subprocess.Popen(
            [sys.executable, __file__, "job", str(number), str(index), options["nodes"], options["ntasks-per-node"]],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    print(f"Submitted batch job {number}")


def job(number: str, index: str, nodes: str, tasks: str) -> None:
    """Run a job until it is over and not requeued."""
    state = STATE / f"{number}_{index}"
    array = "--array" in (STATE / f"{number}.sh").read_text()
    environment = {
        **os.environ,
        "SLURM_JOB_ID": str(10**6 + (free_port() - 15000) % 10**4),  # Lightning takes the port from it
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(int(nodes) * int(tasks)),
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_NNODES": nodes,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_JOB_NODELIST": "127.0.0.1",
    }
    ids = {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index} if array else {"SLURM_JOB_ID": number}
    for start in range(5):
        state.write_text("RUNNING")
        process = subprocess.Popen(
            ["bash", str(STATE / f"{number}.sh")],
            env={**environment, **ids, "SLURM_RESTART_COUNT": str(start)},
            start_new_session=True,
        )
        warned = False
        while process.poll() is None:
            if state.read_text() == "REQUEUED":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=2)  # SLURM too kills only what has not ended by itself some time later
                signal_tasks(f"{number}_{index}", signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            limited = start == 0 and index in os.environ.get("FAKE_SLURM_TIME_LIMIT", "").split(",")
            if limited and not warned and glob.glob(os.environ["FAKE_SLURM_WHEN"]):
                warned = True
                signal_tasks(f"{number}_{index}", signal.SIGUSR2)
            time.sleep(0.05)
        if state.read_text() != "REQUEUED":
            break
    state.write_text("COMPLETED" if process.returncode == 0 else "FAILED")


def signal_tasks(job: str, number: signal.Signals) -> None:
    """Send a signal to the tasks of a job that have not ended."""
    for task in (STATE / f"{job}.tasks").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(task), number)


def srun(*arguments: str) -> None:
    """Start the tasks, each with its number, and wait for them."""
    paths = {}
    rest = list(arguments)
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            paths[option] = rest.pop(0)
    number, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    known = f"{number}_{index}" if number else f"{os.environ['SLURM_JOB_ID']}_0"
    tasks = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        node, local = divmod(rank, int(os.environ["SLURM_NTASKS_PER_NODE"]))
        own = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
        marks = {"%A": number or "", "%a": index or "", "%j": os.environ["SLURM_JOB_ID"], "%t": str(rank)}
        out, err = filled(paths["--output"], marks), filled(paths["--error"], marks)
        with open(out, "a") as stdout, open(err, "a") as stderr:
            program = [word for word in rest if word not in (sys.executable, "-u")]
            tasks.append(Forked(program, cwd=Path.cwd(), env=own, stdout=stdout, stderr=stderr))
    (STATE / f"{known}.tasks").write_text(" ".join(str(task.pid) for task in tasks))
    sys.exit(max(abs(task.wait()) for task in tasks))


def filled(path: str, marks: dict[str, str]) -> str:
    """Put in what %A and others of SLURM's stand for."""
    return re.sub("%[Aajt]", lambda mark: marks[mark[0]], path)


def sacct(*arguments: str) -> None:
    """Tell the state of every job."""
    print("JobID|State|NodeList")
    for path in STATE.glob("*_*"):
        if path.suffix != ".tasks":
            array = "--array" in (STATE / f"{path.name.split('_')[0]}.sh").read_text()
            print(f"{path.name if array else path.name.split('_')[0]}|{path.read_text()}|localhost")


def squeue(*arguments: str) -> None:
    """Tell nothing: submitit asks sacct."""


def scontrol(action: str, known: str) -> None:
    """Put a job into the queue again."""
    assert action == "requeue"
    (STATE / (known if "_" in known else f"{known}_0")).write_text("REQUEUED")
    with (STATE / "requeued").open("a") as file:
        file.write(f"{known}\n")


if __name__ == "__main__":
    called = Path(sys.argv[0]).name
    name, rest = (sys.argv[1], sys.argv[2:]) if called == "fake_slurm.py" else (called, sys.argv[1:])
    globals()[name](*rest)
