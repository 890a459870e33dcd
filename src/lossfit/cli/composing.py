"""Hydra composes a config, which becomes plain dicts and lists. No object below sees Hydra's."""

import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lossfit import option_files, runs
from lossfit import overrides as override_keys
from lossfit.cli.command_line import readable
from lossfit.config import Config
from lossfit.errors import UserError, one_line
from lossfit.runs import trust
from lossfit.sweeps import resources
from lossfit.system import files

# Hydra 1.3 must be given the version whose defaults to use; 1.4, which brings OmegaConf 2.4, warns about it
VERSION: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}

FORWARD_CORRECTION = "lossfit.losses.noise.ForwardCorrection"
MOST_NOISE = 2**24  # bytes of its file: the shares of 700 classes among each other


def register_resolvers() -> None:
    """Register the resolvers that conf/ uses.

    ${run_id:}: six random characters. ${run_name:OVERRIDES,CHOICES}: what was typed, as a file name.
    ${run_folder:RESUME,NEW}: the folder of the run to resume, or NEW without one. ${groups:}: every group and option.
    ${ranks:DEVICES} and ${gpus:ACCELERATOR,DEVICES}: what a job asks a scheduler for.
    """
    register: Callable[..., None] = OmegaConf.register_new_resolver if VERSION else OmegaConf.register_resolver
    register("run_id", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    # cached, so that all jobs of a sweep have the name of its folder
    register("run_name", _run_name, use_cache=True, replace=True)
    register("run_folder", lambda old, new: str(runs.folder_of(old)) if old else new, replace=True)
    register("groups", option_files.groups, replace=True)
    register("ranks", resources.ranks, replace=True)
    register("gpus", resources.gpus, replace=True)


def _run_name(typed: Any, groups: Any) -> str:
    return override_keys.short_name(list(typed), set(groups))


def resolved(cfg: DictConfig) -> tuple[Config, Path, list[str]]:
    """Return the job's plain config, its run folder and the overrides that were typed."""
    own = HydraConfig.get()
    if not isinstance(trusted := cfg.get("trust_code", False), bool):
        raise UserError(f"trust_code must be true or false, got {trusted!r}")
    if trusted:
        os.environ[trust.VARIABLE] = "1"
    return _plain(cfg, own.runtime.choices), Path(own.runtime.output_dir), list(own.overrides.task)


def swept() -> bool:
    """Whether this is a job of a sweep, whose sweeper may have made its run folder."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def composed(*overrides: str) -> Config:
    """Return the plain config that overrides compose, for scripts and notebooks."""
    return plain(_composed(overrides))


def composed_run(*overrides: str) -> tuple[Config, Path]:
    """Return the plain config that overrides compose, and the new run folder that train.py would make for them."""
    cfg = _composed(overrides)
    folder = Path(cfg.hydra.run.dir)
    return plain(cfg), folder


def _composed(overrides: Sequence[str]) -> DictConfig:
    override_keys.check_added(overrides)
    register_resolvers()
    with initialize_config_dir(str(option_files.CONF), **VERSION):
        return compose("config", [readable(override) for override in overrides], return_hydra_config=True)


def plain(cfg: DictConfig) -> Config:
    """Return the plain config of a composed one that still has the key `hydra`."""
    choices = cfg.hydra.runtime.choices
    with read_write(cfg), open_dict(cfg):
        del cfg.hydra
    return _plain(cfg, choices)


def _plain(cfg: DictConfig, choices: Mapping[str, str]) -> Config:
    """Return dicts and lists, with the chosen option of each group under `choices`."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    own = {str(key): value for key, value in config.items() if key not in override_keys.COMMAND_KEYS}
    chosen = {group: option for group, option in choices.items() if option and not group.startswith("hydra/")}
    return {**own, **({"loss": _with_noise(own["loss"])} if "loss" in own else {}), "choices": chosen}


def _with_noise(loss: Any) -> Any:
    """Return a loss's node with the shares in the place of the file that has them, so that a run folder has all."""
    if not isinstance(loss, dict) or loss.get("_target_") != FORWARD_CORRECTION:
        return loss
    if not isinstance(path := loss.get("noise"), str):
        return loss
    try:
        return {**loss, "noise": json.loads(files.read_text(Path(path).expanduser(), MOST_NOISE))}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"loss.noise={path} must be a share, {{true class: {{label: share}}}} or a JSON file of these, such as "
            f"scripts/noise_matrix.py writes: {one_line(error)}"
        ) from error
