"""What is logged while a run is trained."""

import logging
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lossfit import cli, runs
from tests.conftest import ROOT, fit


def test_matplotlib_does_not_say_that_it_lists_the_fonts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It logs that at INFO when it is first imported, before and while a run is trained."""
    fonts = logging.getLogger("matplotlib.font_manager")
    before = fonts.level
    with runs.logging_into(tmp_path, main=True):
        logging.getLogger("matplotlib.font_manager").info("generated new fontManager")
        logging.getLogger("lossfit.test").info("a line")
    assert capsys.readouterr().out == "a line\n"
    assert fonts.level == before
    cli.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), **cli.VERSION):
        hydra = compose("config", return_hydra_config=True).hydra
    assert hydra.hydra_logging.loggers["matplotlib.font_manager"].level == "WARNING"


def test_other_ranks_show_warnings_alone_and_write_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with runs.logging_into(tmp_path, main=False):
        logging.getLogger("lossfit.test").info("a line")
        logging.getLogger("lossfit.test").warning("beware")
    assert capsys.readouterr().out == "Warning: beware\n"
    assert not list(tmp_path.iterdir())


def test_what_was_said_before_there_was_a_folder_is_in_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("lossfit.test")
    with runs.logging_into(None, main=True) as said:
        logger.warning("no image: %s", "1.jpg")
    with runs.logging_into(tmp_path, main=True, before=said):
        logger.info("trained")
    lines = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("lossfit.test: ")[2] for line in lines] == ["no image: 1.jpg", "trained"]
    assert capsys.readouterr().out == "Warning: no image: 1.jpg\ntrained\n"


def test_nothing_is_warned_of_in_epochs_without_validation(tmp_path: Path) -> None:
    fit(tmp_path, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2")
    log = (tmp_path / "train.log").read_text(encoding="utf-8")
    assert " WARNING " not in log
    assert "val/acc" in log
