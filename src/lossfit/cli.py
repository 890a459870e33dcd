"""The Hydra boundary of train.py: resolvers, the help page, and Hydra's errors in plain words. Imports no torch."""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lossfit import cluster, runs, sweeps, trust
from lossfit.config import Config
from lossfit.errors import UserError, did_you_mean
from lossfit.processes import end_rank_with_starter, started_rank

CONF = Path(__file__).parents[2] / "conf"
# Hydra 1.3 is to be told whose defaults to take; 1.4, which brings OmegaConf 2.4, warns of that and takes its own
VERSION: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


OF_THE_COMMAND = ("resume", "trust_code")  # keys of config.yaml that are no part of a run


def register_resolvers() -> None:
    """Make ${run_id:} (six random characters) and ${groups:} (the options of every group) known to configs.

    And ${run_folder:RESUME,NEW}, the folder of the run to resume, or NEW without one, and what a launcher asks for,
    ${ranks:DEVICES} and ${gpus:ACCELERATOR,DEVICES}.
    """
    register: Callable[..., None] = OmegaConf.register_new_resolver if VERSION else OmegaConf.register_resolver
    register("run_id", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    register("run_folder", lambda old, new: str(runs.folder_of(old)) if old else new, replace=True)
    register("groups", groups, replace=True)
    register("ranks", cluster.ranks, replace=True)
    register("gpus", cluster.gpus, replace=True)


def check_ranks(arguments: Sequence[str]) -> None:
    """Refuse a command line by which ranks that torchrun or srun started would not train the same run folder.

    A process that goes on from here ends with torchrun's agent.
    """
    if started_rank() is None:
        return
    given = {argument.lstrip("+").partition("=")[0]: argument.partition("=")[2] for argument in arguments}
    if given.keys() & {"-m", "--multirun"}:
        raise UserError("-m: start a sweep as one process, without torchrun or srun; each job starts its own ranks")
    if "resume" in given:
        raise UserError(
            f"resume={given['resume']}: several ranks go on with `-m lossfit FOLDER` in the place of train.py; "
            f"what is to change, such as trainer.max_epochs, is written into its config.yaml"
        )
    if "hydra.run.dir" not in given:
        raise UserError("hydra.run.dir has no value, and several ranks need one: give hydra.run.dir=FOLDER to them all")
    end_rank_with_starter()


def resolved(cfg: DictConfig) -> tuple[Config, Path, list[str]]:
    """Return the job's plain config, its run folder and the overrides that were typed."""
    own = HydraConfig.get()
    if cfg.get("trust_code"):
        os.environ[trust.VARIABLE] = "1"
    return _plain(cfg, own.runtime.choices), Path(own.runtime.output_dir), list(own.overrides.task)


def swept() -> bool:
    """Whether this is a job of a sweep, whose sweeper may have made its run folder."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def arguments(typed: list[str]) -> list[str]:
    """Spell out `resume=SWEEP`: the command of that sweep, with what is typed beside it in place of the old."""
    for argument in typed:
        name, _, value = argument.partition("=")
        folder = Path(value.strip("'\""))
        if name == "resume" and sweeps.is_sweep(folder):
            now = {sweeps.key(other): other for other in typed if other not in (argument, "-m", "--multirun")}
            old = {sweeps.key(other): other for other in sweeps.read_command(folder)}
            extend = ["hydra.sweeper.extend=true"] if now else []
            return ["--multirun", *(old | now).values(), f"hydra.sweep.dir={quoted(str(folder))}", *extend]
    return typed


def quoted(text: str) -> str:
    """Return a text as a value that Hydra reads as it stands."""
    return QuotedString(text, Quote.single).with_quotes()


def composed(*overrides: str) -> Config:
    """Return the plain config of a command line's overrides, for scripts and notebooks."""
    register_resolvers()
    with initialize_config_dir(str(CONF), **VERSION):
        cfg = compose("config", [*overrides], return_hydra_config=True)
    return plain(cfg)


def plain(cfg: DictConfig) -> Config:
    """Return the plain config of a composed one that has Hydra's own beside it."""
    choices = cfg.hydra.runtime.choices
    with read_write(cfg), open_dict(cfg):
        del cfg.hydra
    return _plain(cfg, choices)


def _plain(cfg: DictConfig, choices: Mapping[str, str]) -> Config:
    """Turn a composed config into dicts and lists, with the chosen options beside it under `choices`."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    plain = {str(key): value for key, value in config.items() if key not in OF_THE_COMMAND}
    chosen = {group: option for group, option in choices.items() if option and not group.startswith("hydra/")}
    return {**plain, "choices": chosen}


def groups() -> str:
    """Describe every group and option by the first line of its file, for --help."""
    lines = []
    for group in sorted(path for path in CONF.rglob("*") if path.is_dir()):
        lines.append(f"{group.relative_to(CONF).as_posix()}=")
        for file in sorted(group.glob("*.yaml")):
            lines.append(f"  {file.stem:18} {meaning(file)}")
    return "\n".join(lines).replace("$", "$$")


def meaning(file: Path) -> str:
    """Return the first comment of a YAML file, after any package directive."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    return ""


def explain(error: Exception) -> str | None:
    """Word what Hydra and OmegaConf say of a command line; None for an error that is none of theirs."""
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        known = [file.stem for file in (CONF / group).glob("*.yaml")]
        return f"{group}={option}: no such option{did_you_mean(option, known)}"
    if isinstance(error, OverrideParseException):
        lines = [line for line in str(error).splitlines() if not line.startswith(("Error parsing", "See http"))]
        reason = lines[0] if lines else "not an override"
        return f"cannot read {error.override!r} ({reason}); write KEY=VALUE, in quotes if it holds brackets or spaces"
    cause: BaseException = error
    while (before := cause.__cause__ or cause.__context__) is not None and not isinstance(cause, UserError):
        cause = before
    if isinstance(cause, UserError):  # raised in a resolver
        return str(cause)
    cause = error
    while isinstance(cause, HydraException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        parent = cause.parent_node
        known = [str(key) for key in parent if key != "hydra"] if isinstance(parent, DictConfig) else []
        return f"{cause.full_key}: no such key{did_you_mean(str(cause.key), known)}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {cause.msg}"
    if isinstance(error, HydraException):
        return str(error).strip()
    if isinstance(error, OSError):  # from making the run folder: what a run raises comes as a RunError
        return f"cannot use {error.filename}: {error.strerror}; choose another folder with hydra.run.dir=FOLDER"
    return None
