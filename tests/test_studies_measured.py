"""What a study measures of a finished run: as the run was tested, and without what cannot be measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import lossfit
from lossfit import runs
from lossfit.inference import evaluation
from lossfit.runs import names
from lossfit.studies.measured import measured
from tests.conftest import fit

Script = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    fit(tmp_path / "run", "tta=mirror", "trainer.max_epochs=2", "callbacks=[checkpoint]", "logger=[]")
    return tmp_path / "run"


def test_what_is_evaluated_is_tested_with_the_tta_of_the_run(run: Path, script: Script) -> None:
    wanted = [
        "test/acc",
        "test/nll",
        "test/brier",
        "last/test/nll",
        "calibrated/test/nll",
        "calibrated/test/temperature",
    ]
    found = measured(run, wanted)
    own = runs.read_result(run)["metrics"]
    assert {name: found[name] for name in ("test/acc", "test/nll")} == {
        name: own[name] for name in ("test/acc", "test/nll")
    }
    model = lossfit.load(run, tta="mirror")
    images, target = evaluation.split(model, "test")
    p = model(images)
    brier = (p - p.new_zeros(p.shape).scatter(1, target[:, None], 1)).square().sum(1).mean().item()
    assert found["test/brier"] == pytest.approx(brier, rel=1e-5)
    last = lossfit.load(run / names.LAST, tta="mirror")(images)
    assert found["last/test/nll"] == pytest.approx(-last.gather(1, target[:, None]).log().mean().item(), rel=1e-5)
    assert script("evaluate", run, "--calibrate")[0] == 0
    calibrated = lossfit.load(run, tta="mirror", calibrated=True)
    assert found["calibrated/test/temperature"] == calibrated.temperature != 1
    nll = -calibrated(images).gather(1, target[:, None]).log().mean().item()
    assert found["calibrated/test/nll"] == pytest.approx(nll, rel=1e-5)
    mixed = json.loads((run / names.MEASURED).read_text()) | {"tta": None, "values": {"test/acc": 0.0}}
    (run / names.MEASURED).write_text(json.dumps(mixed))
    assert measured(run, wanted) == found, "of another tta, so it is measured again"


def test_a_run_that_cannot_be_evaluated_is_named_and_keeps_its_other_metrics(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = (run / names.BEST).read_bytes()
    (run / names.BEST).write_bytes(best[:1000])
    own = runs.read_result(run)["metrics"]
    found = measured(run, ["test/acc", "test/brier", "last/test/acc"])
    assert set(found) == {"test/acc", "last/test/acc"}
    assert found["test/acc"] == own["test/acc"]
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"Warning: test/brier of {run} is left out: {run}/checkpoints/best.ckpt")
    assert warning.endswith("; resume the sweep to measure it again")
    (run / names.BEST).write_bytes(best)
    assert "test/brier" in measured(run, ["test/acc", "test/brier", "last/test/acc"]), "nothing was kept"
