"""CONTRIBUTING's steps for a loss, done for real in a copy: a class, a YAML file, an oracle; nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import QUICK, ROOT

CLASS = """

class Cubic(Loss):
    \"\"\"sum_k |p_k - q_k|^3 with p = softmax(z).\"\"\"

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        \"\"\"(N, C), (N, C) -> (N,).\"\"\"
        return (logits.softmax(1) - target).abs().pow(3).sum(1)
"""
OPTION = """# a loss that nobody needs
_target_: lossfit.losses.regression.Cubic
weights: null
smoothing: 0.0
"""
ORACLE = """    "cubic": lambda z, q: (z.softmax(1) - q).abs().pow(3).sum(1).mean(),
"""


def test_a_new_loss_trains_and_is_held_to_the_laws_by_being_there(tmp_path: Path) -> None:
    for name in ("src", "conf", "tests", "train.py", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    with (tmp_path / "src/lossfit/losses/regression.py").open("a") as stream:
        stream.write(CLASS)
    (tmp_path / "conf/loss/cubic.yaml").write_text(OPTION)
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)

    trained = run("train.py", *QUICK, "loss=cubic")
    assert "Test accuracy" in trained.stdout, trained.stderr
    laws = run("-m", "pytest", "tests/test_losses.py", "-k", "has_an_oracle", "-p", "no:cacheprovider")
    assert "test_every_loss_has_an_oracle" in laws.stdout, "without an oracle the new loss is refused"
    assert laws.returncode == 1
    tests = tmp_path / "tests/test_losses.py"
    tests.write_text(tests.read_text().replace("ORACLES = {", "ORACLES = {\n" + ORACLE, 1))
    laws = run("-m", "pytest", "tests/test_losses.py", "-k", "cubic", "-p", "no:cacheprovider")
    assert laws.returncode == 0, laws.stdout
    assert int(laws.stdout.split(" passed")[0].split()[-1]) >= 7
