"""docs/losses.md is what the docstrings and YAML files say."""

import subprocess
import sys

from tests.conftest import ROOT

LOSSES = {path.stem for path in (ROOT / "conf" / "loss").glob("*.yaml")} - {"custom"}


def test_the_page_is_current() -> None:
    command = [sys.executable, "scripts/loss_docs.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_loss_has_its_picture_and_no_other() -> None:
    assert {path.stem for path in (ROOT / "docs" / "losses").glob("*.png")} == LOSSES
