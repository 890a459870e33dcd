"""docs/losses.md is what the docstrings and YAML files say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import forks
from tests.conftest import ROOT

LOSSES = {path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml")} - {"custom"}
FAMILY = """\"\"\"Cubic losses: nobody needs them.\"\"\"

from lossfit.losses.loss import HardLabelLoss


class Cubic(HardLabelLoss):
    \"\"\"(1 - p_y)^3.

    Takes class indices only.
    \"\"\"
"""
OPTION = """# a loss of a new family
_target_: lossfit.losses.cubic.Cubic
weights: {beta: 0.5}
"""
SECTION = """## Cubic losses

Nobody needs them.

### cubic

*a loss of a new family*

    (1 - p_y)^3.

![cubic: value and gradient](losses/cubic.png)

Takes class indices only.

`python train.py loss=cubic` for classes; options `weights={beta: 0.5}`; class indices only.

In Python `lossfit.losses.cubic.Cubic`.
"""


def test_the_page_is_current() -> None:
    done = forks.run(["scripts/loss_docs.py", "--check"])
    assert done.returncode == 0, done.stderr


def test_every_loss_has_its_picture_and_no_other() -> None:
    assert {path.stem for path in (ROOT / "docs" / "losses").glob("*.png")} == LOSSES | {"overview", "values"}


def test_values_are_written_as_hydra_reads_them() -> None:
    page = (ROOT / "docs" / "losses.md").read_text()
    assert "`weights=null`" in page
    assert "`weights={beta: 0.999}`" in page
    assert "`squared=false`" in page
    assert "=None" not in page


def test_a_loss_in_a_new_family_gets_its_section_without_further_edits(tmp_path: Path) -> None:
    for name in ("src", "conf", "scripts", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "src/lossfit/losses/cubic.py").write_text(FAMILY)
    (tmp_path / "conf/loss/cubic.yaml").write_text(OPTION)
    command = [sys.executable, "-c", "from scripts.loss_docs import page; print(page())"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}{os.pathsep}{tmp_path}"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert SECTION in done.stdout, done.stderr
