"""Overrides: their keys, their identity, and the name of a run that they make."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from lossfit import cli, overrides
from tests.conftest import ROOT

GROUPS = {"optimizer", "loss", "data", "data/mix", "callbacks", "model"}


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        (["optimizer=muon", "loss=focal"], "muon-focal"),
        (["optimizer=sgd", "optimizer.lr=0.1", "seed=3"], "sgd-lr0.1-seed3"),
        (["data/mix=mixup", "+callbacks=ema", "++loss.gamma=1"], "mixup-ema-gamma1"),
        (["optimizer=sgd,adam", "seed=1,2"], "sgd+adam-seed1+2"),
        (["~callbacks", "callbacks=[checkpoint,ema]"], "no_callbacks-checkpoint+ema"),
        (["data.dir=/home/me/my photos/cats", "init_from=../runs/a b"], "dircats-init_fromab"),
        (["optimizer.lr=choice(1e-2,1e-3)"], "lrchoice1e-2+1e-3"),
        (["hydra.run.dir=x", "hydra/launcher=slurm", "resume=x", "trust_code=true"], "default"),
        (["loss.function=my/../../etc"], "functionetc"),
        ([], "default"),
    ],
)
def test_a_run_is_named_by_what_was_typed(typed: list[str], name: str) -> None:
    assert overrides.short_name(typed, GROUPS) == name


def test_a_name_is_short_and_can_stand_in_a_path() -> None:
    name = overrides.short_name([f"model.{'k' * 90}={'v' * 90}/\0\n$(rm):*?" for _ in range(9)], GROUPS)
    assert re.fullmatch(r"[A-Za-z0-9._+-]{1,60}", name)


@pytest.mark.parametrize("override", ["optimizer.lr=1", "+optimizer.lr=1", "++optimizer.lr=a=b", "~optimizer.lr"])
def test_the_key_of_an_override(override: str) -> None:
    assert overrides.key(override) == "optimizer.lr"


def test_jobs_with_the_same_overrides_in_another_order_are_the_same() -> None:
    assert overrides.identity(["a=1", "b=2"]) == overrides.identity(["a=3", "b=2", "a=1"])
    assert overrides.identity(["a=1"]) != overrides.identity(["a=2"])


def test_options_that_are_added_do_not_replace_those_that_are_chosen() -> None:
    chosen = "callbacks=[checkpoint]"
    both = [chosen, "+callbacks=ema", "+callbacks.custom.options.n=1", "callbacks.custom.options.n=2"]
    assert [*overrides.by_key(both).values()] == [*both[:2], both[3]]
    assert overrides.identity([chosen, "+callbacks=ema"]) != overrides.identity([chosen, "+callbacks=lr_monitor"])
    assert overrides.identity(["+callbacks=ema", "+callbacks=lr_monitor"]) == {"+callbacks=lr_monitor"}


def test_run_and_sweep_folders_have_the_name() -> None:
    cli.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), **cli.VERSION):
        hydra = compose("config", ["optimizer=muon", "loss=focal", "seed=2"], return_hydra_config=True).hydra
    name = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_muon-focal-seed2_[0-9a-f]{6}"
    assert re.fullmatch(f"logs/train/runs/{name}", hydra.run.dir)
    assert re.fullmatch(f"logs/train/multiruns/{name}", hydra.sweep.dir)


def test_all_jobs_of_a_sweep_have_one_sweep_folder() -> None:
    """Also with sweepers of other packages, which read it from each job's config."""
    cli.register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), **cli.VERSION):
        loader = GlobalHydra.instance().config_loader()
        sweep = loader.load_configuration("config", ["optimizer=sgd,adam"], run_mode=RunMode.MULTIRUN)
        folder = sweep.hydra.sweep.dir
        jobs = [loader.load_sweep_config(sweep, [f"optimizer={name}"]) for name in ("sgd", "adam")]
    assert "_sgd+adam_" in folder
    assert [job.hydra.sweep.dir for job in jobs] == [folder, folder]
