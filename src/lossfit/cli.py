"""The Hydra boundary of train.py: resolvers, the help page, and Hydra's errors in plain words. Imports no torch."""

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lossfit import overrides as override_keys
from lossfit import runs, sweeps
from lossfit.config import Config
from lossfit.errors import UserError, did_you_mean
from lossfit.runs import trust
from lossfit.sweeps import resources as cluster
from lossfit.system.ranks import end_with_parent, started_rank

CONF = Path(__file__).parents[2] / "conf"
# Hydra 1.3 is to be told whose defaults to take; 1.4, which brings OmegaConf 2.4, warns of that and takes its own
VERSION: dict[str, str] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
OF_THE_COMMAND = ("resume", "trust_code")  # keys of config.yaml that are no part of a run
PATHS = ("resume", "init_from", "data.dir", "hydra.run.dir", "hydra.sweep.dir")  # keys whose values are paths
ADDED = ("callbacks", "logger")  # groups to whose options `+` adds one
SEVERAL = (*ADDED, "metrics", "experiment", "debug")  # groups of which none or several options may be chosen

FOOTER = "\n    full_key: "  # begins what OmegaConf adds to its messages


def _returned(job: JobReturn) -> object:
    """Return what a job returned or raise what it raised, without the line that Hydra prints before it raises."""
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


JobReturn.return_value = JobReturn.return_value.getter(_returned)  # type: ignore[attr-defined, method-assign]


def register_resolvers() -> None:
    """Register the resolvers that conf/ uses.

    ${run_id:}: six random characters. ${run_name:OVERRIDES,CHOICES}: what was typed, as a file name.
    ${run_folder:RESUME,NEW}: the folder of the run to resume, or NEW without one. ${groups:}: every group and option.
    ${ranks:DEVICES} and ${gpus:ACCELERATOR,DEVICES}: what a job asks a scheduler for.
    """
    register: Callable[..., None] = OmegaConf.register_new_resolver if VERSION else OmegaConf.register_resolver
    register("run_id", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    register("run_name", lambda typed, groups: override_keys.short_name(list(typed), set(groups)), replace=True)
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
    end_with_parent()


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


def arguments(typed: list[str]) -> list[str]:
    """Return a command line as Hydra reads it, options first; raise UserError for an override that is no use.

    `resume=SWEEP` becomes the saved command of that sweep; what is typed beside it replaces its old values.
    """
    if "trust_code=true" in typed:
        os.environ[trust.VARIABLE] = "1"  # before the command of a sweep is read
    options = [one for one in typed if one in ("-m", "--multirun") or (one.startswith("--") and "=" in one)]
    typed = [*options, *(readable(one) for one in typed if one not in options)]
    for argument in typed:
        name, _, value = argument.partition("=")
        folder = Path(value.strip("'\""))
        if name == "resume" and sweeps.is_sweep(folder):
            now = {override_keys.key(other): other for other in typed if other not in (argument, "-m", "--multirun")}
            old = {override_keys.key(other): other for other in sweeps.read_command(folder)}
            extend = ["hydra.sweeper.extend=true"] if now else []
            return ["--multirun", *(old | now).values(), f"hydra.sweep.dir={quoted(str(folder))}", *extend]
    return typed


def readable(override: str) -> str:
    """Return an override with its path, if it sets one, in quotes where Hydra would read it as something else.

    Raises UserError for one that sets a key in the place of a group, or a group to what is no option.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except HydraException:
        parsed = None
    if parsed is not None:
        _check_group(parsed)
    key, equals, value = override.partition("=")
    if override_keys.key(key) not in PATHS or not equals:
        return override
    value = value.strip()
    if not value.strip("'\""):
        raise UserError(f"{key} has no value: give {key}=FOLDER")
    if parsed is not None and (parsed.is_sweep_override() or isinstance(parsed.value(), str | None)):
        return override
    return override if value[0] in "'\"" else f"{key}={quoted(os.path.expanduser(value))}"


def _check_group(override: Override) -> None:
    """Refuse a group without an option, or with what is none, and a key that has the name of a group."""
    key, value, line = override.key_or_group, override.value(), override.input_line
    values = [_plain_value(one) for one in value.list] if isinstance(value, ChoiceSweep) else [value]
    if "." in key and (CONF / (group := key.replace(".", "/"))).is_dir():
        for one in values:
            if isinstance(one, str):
                raise UserError(f"{line}: {group} is a group, written with a slash: {_choose(group, one)}")
    if not (CONF / key).is_dir() or all(isinstance(one, dict | Sweep | Glob) for one in values):
        return
    if override.is_delete():
        if key in ADDED:
            raise UserError(f"{line}: {key} is a list: for none write {key}=[]")
        if value is not None:
            raise UserError(f"{line}: write ~{key}, without a value")
        return
    if (override.is_add() or override.is_force_add()) and key not in ADDED:
        raise UserError(f"{line}: one option of {key} is chosen already: write {key}=OPTION, without +")
    for one in values:
        options = one if isinstance(one, list) else [one]
        if not all(isinstance(option, str) for option in options):
            raise UserError(f"{line}: {'null' if one is None else one} is no option: {_choose(key)}")
        if len(options) > 1 and key not in SEVERAL:
            raise UserError(f"{line}: {key} has one option: write {key}=OPTION, or -m {key}=A,B to train with each")


def _plain_value(value: object) -> object:
    return value.text if isinstance(value, QuotedString) else value


def _choose(group: str, option: str = "OPTION") -> str:
    """Say how an option of a group is chosen, or none."""
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if option in options:
        return f"write {group}={option}"
    if not options:
        return "write " + " or ".join(f"{group}/{path.name}=OPTION" for path in sorted((CONF / group).iterdir()))
    none = f"; for none write {group}={'none' if 'none' in options else '[]'}"
    return f"write {group}=OPTION (known: {', '.join(options)}){none if group in SEVERAL or 'none' in options else ''}"


def quoted(text: str) -> str:
    """Return a text as a value that Hydra reads as it stands."""
    return QuotedString(text, Quote.single).with_quotes()


def composed(*overrides: str) -> Config:
    """Return the plain config of a command line's overrides, for scripts and notebooks."""
    register_resolvers()
    with initialize_config_dir(str(CONF), **VERSION):
        cfg = compose("config", [readable(override) for override in overrides], return_hydra_config=True)
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
        what = f"{group}={option}: no such option" if group else f"--config-name={option}: no such config in {CONF}"
        return what + did_you_mean(option, known)
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
        return _no_such_key(cause, str(error))
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {str(cause.msg).partition(FOOTER)[0]}"
    if isinstance(error, HydraException):
        text = str(error).strip()
        absent = re.match(r"Could not delete from config\. '(.*)' does not exist\.", text)
        return f"~{absent[1]}: there is nothing to delete: the key is not there, or is null" if absent else text
    if isinstance(error, OSError):  # from making the run folder: what a run raises comes as a RunError
        what = f"cannot use {error.filename}" if error.filename else "cannot write the run folder"
        return f"{what}: {error.strerror or error}; choose another folder with hydra.run.dir=FOLDER"
    return None


def _no_such_key(error: OmegaConfBaseException, said: str) -> str:
    """Say what may be meant by a key that is not in the config; `said` is what Hydra says of it."""
    key, parent = str(error.full_key), error.parent_node
    text = f"{key}: no such key"
    if "/" in key:
        paths = [path.relative_to(CONF).as_posix() for path in CONF.rglob("*/*") if path.is_dir()]
        text += did_you_mean(key, [*paths, key.replace("/", ".")])
    elif isinstance(parent, DictConfig):
        text += did_you_mean(
            str(error.key), [str(name) for name in parent if name != "hydra" and not str(name).startswith("_")]
        )
    option = Path(key.replace(".", "/"))
    if (CONF / f"{option}.yaml").is_file():
        plus = "+" if str(option.parent) in ADDED else ""
        return f"{text}; {option.name} is an option of {option.parent}: {plus}{option.parent}={option.name}"
    add = re.search(r"To append to your config use (.*)", said)
    # a mapping that is no call, no group and none of Hydra's takes any key
    free = "." in key and isinstance(parent, DictConfig) and "_target_" not in parent
    if add and free and not (CONF / option.parent).is_dir() and not (key.startswith("hydra.") and len(parent)):
        text += f"; to add it, write {add[1]}"
    return text
