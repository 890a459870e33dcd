"""Change the source in small ways, one at a time, and print which changes no test of that file notices.

    pip install mutmut
    python scripts/bench/mutants.py --sample 20             # at most 20 changes of each file, drawn by --seed
    python scripts/bench/mutants.py --files losses,mix.py   # every change of the files whose paths contain these

mutmut makes the changes (a comparison, an operator, a constant, an argument, a returned value), runs for each function
the tests that call it, and works in a copy of this checkout's files under --work. Every result is a line of JSON in
WORK/results.jsonl: {file, sha256, mutant, status, diff}. What has a result, for the same content of the file, is not
run again, so a run that was stopped or that reached --minutes goes on with the same command; --again repeats those
that survived, after a test was added. Whether a survivor is a mistake of the tests is for a person to say.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LEFT_OUT = "two_ranks or all_ranks or stopped_run or process_killed or two_processes or without_hydra or any_file"
SUBJECTS = {  # files -> their tests
    "src/lossfit/losses/*.py": ["test_losses.py", "test_promises.py", "test_own_code.py"],
    "src/lossfit/data/[abcm]*.py": ["test_data.py", "test_promises.py"],
    "src/lossfit/data/[dfs]*.py": ["test_data_sources.py", "test_data.py", "test_promises.py"],
    "src/lossfit/metrics/*.py": ["test_own_code.py", "test_costs.py", "test_evaluation.py", "test_promises.py"],
    "src/lossfit/runs/checkpoint*.py": [
        "test_checkpoint_values.py",
        "test_checkpoints.py",
        "test_promises.py",
        "test_trained.py",
        "test_hostile.py",
    ],
    "src/lossfit/callbacks/last_checkpoint.py": ["test_resume.py", "test_promises.py"],
}
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {only}
do_not_mutate_patterns = ['^\\s*raise ']
also_copy = {copied}
pytest_add_cli_args = ["-n", "0", "-p", "no:cacheprovider", "--hypothesis-seed", "0", "-k", "not ({left_out})"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
debug = true
"""


def main() -> None:
    """Run what has no result yet, and print the counts and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="at most N changes of each file (default all)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    parser.add_argument("--files", default="", help="parts of the paths of the files to change, with commas between")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no more after so many minutes")
    parser.add_argument("--again", action="store_true", help="repeat those that survived")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "lossfit-mutants")
    options = parser.parse_args()
    if find_spec("mutmut") is None:
        parser.error("mutmut is not installed: pip install mutmut")
    deadline = time.monotonic() + 60 * options.minutes
    store = options.work / "results.jsonl"
    options.work.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    tracked = [name for name in listed.stdout.decode().splitlines() if (ROOT / name).is_file()]
    shown = []
    for number, (pattern, tests) in enumerate(SUBJECTS.items()):
        files = [file for file in tracked if fnmatch(file, pattern)]
        files = [file for file in files if any(part in file for part in options.files.split(","))]
        sums = {file: hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in files}
        shown += list(sums.items())
        if files and time.monotonic() < deadline:
            try:
                copy = Copy(options.work / str(number), tracked, files, tests)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                continue
            done = {r["mutant"] for r in results(store, sums) if not (options.again and r["status"] != "killed")}
            chosen, known = [], copy.statuses()
            for file in files:
                module = file.removeprefix("src/").removesuffix(".py").replace("/", ".")
                names = sorted(name for name in known if name.startswith(f"{module}."))
                random.Random(options.seed).shuffle(names)
                chosen += [name for name in names[: options.sample] if name not in done]
            try:
                copy.run(chosen, deadline)
            finally:
                records = copy.records(chosen, sums)
                with store.open("a") as stream:
                    stream.writelines(json.dumps(record) + "\n" for record in records)
                if len(records) < len(chosen):
                    print(f"{len(chosen) - len(records)} of {len(chosen)} changes were not tried", file=sys.stderr)
    report(results(store, dict(shown)))


class Copy:
    """A copy of the checkout in which mutmut changes `files`."""

    def __init__(self, folder: Path, tracked: list[str], files: list[str], tests: list[str]) -> None:
        self.folder = folder
        for name in tracked:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
        tops = sorted({name.split("/")[0] for name in tracked} - {"src", "pyproject.toml"})
        lists = {"only": files, "copied": tops, "tests": [f"tests/{test}" for test in tests]}
        config = CONFIG.format(left_out=LEFT_OUT, **{key: json.dumps(value) for key, value in lists.items()})
        (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + config)
        (folder / "mutants" / "src").mkdir(parents=True, exist_ok=True)  # Python skips a path that it once did not find
        said = self.mutmut("run", "none of them")  # makes the mutants, finds each function's tests and ends there
        if "nothing matches" not in said:
            raise RuntimeError(f"{said[-3000:]}\nmutmut could not run {', '.join(tests)}")

    def mutmut(self, *arguments: str, until: float = float("inf")) -> str:
        """Run a command of mutmut; interrupt it when the time is over."""
        path = os.pathsep.join([str(self.folder / "mutants" / "src"), str(self.folder / "mutants")])
        process = subprocess.Popen(
            [sys.executable, "-m", "mutmut", *arguments], cwd=self.folder, start_new_session=True, text=True,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            return process.communicate(timeout=None if until == float("inf") else max(1.0, until - time.monotonic()))[0]
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                return "stopped: the time is over"
            raise

    def run(self, mutants: list[str], deadline: float) -> None:
        """Run the tests on each of the mutants, one process at a time."""
        if mutants:
            print(self.mutmut("run", "--max-children", "1", *mutants, until=deadline)[-200:])

    def statuses(self) -> dict[str, str]:
        """Return what came of each mutant, by its name."""
        lines = self.mutmut("results", "--all", "true").splitlines()
        return {name.strip(): status for name, _, status in (line.partition(": ") for line in lines) if status}

    def records(self, mutants: list[str], sums: dict[str, str]) -> list[dict[str, Any]]:
        """Return a record for each mutant that has a result."""
        found = []
        for name, status in self.statuses().items():
            if name in mutants and status not in ("not checked", "check was interrupted by user"):
                file = "src/" + name.rsplit(".", 1)[0].replace(".", "/") + ".py"
                diff = "" if status == "killed" else self.mutmut("show", name)
                found.append({"file": file, "sha256": sums[file], "mutant": name, "status": status, "diff": diff})
        return found


def results(store: Path, sums: dict[str, str]) -> list[dict[str, Any]]:
    """Return the last result of each mutant of the files with these contents."""
    lines = store.read_text().splitlines() if store.exists() else []
    records = {record["mutant"]: record for record in map(json.loads, lines)}
    return [record for record in records.values() if sums.get(record["file"]) == record["sha256"]]


def report(records: list[dict[str, Any]]) -> None:
    """Print a line of counts for each file, after the changes that survived."""
    for record in records:
        if record["status"] != "killed":
            print(f"\n{record['status']}: {record['diff']}")
    print(f"\n{'file':45}{'mutants':>9}{'killed':>8}{'survived':>10}{'other':>7}")
    for file in sorted({record["file"] for record in records}):
        count = Counter(record["status"] for record in records if record["file"] == file)
        other = count.total() - count["killed"] - count["survived"]
        print(f"{file:45}{count.total():9}{count['killed']:8}{count['survived']:10}{other:7}")


if __name__ == "__main__":
    main()
