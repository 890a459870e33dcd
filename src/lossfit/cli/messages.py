"""Hydra's and OmegaConf's errors in plain words: which key, and what to type instead."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lossfit import overrides
from lossfit.cli.composing import swept
from lossfit.errors import TRACEBACK, UserError, did_you_mean, exit_on_error
from lossfit.option_files import CONF, all_groups, options, options_with, why_no_key

FOOTER = "\n    full_key: "  # begins what OmegaConf adds to its messages


@contextmanager
def hydra_exit_on_error() -> Iterator[None]:
    """Do what `exit_on_error` does for a block that runs Hydra's main function."""
    before = os.environ.get(TRACEBACK)
    os.environ[TRACEBACK] = "1"  # Hydra then raises its errors instead of printing them and exiting
    try:
        with exit_on_error(explain):
            yield
    finally:
        if before is None:
            del os.environ[TRACEBACK]
        else:
            os.environ[TRACEBACK] = before


def exit_on_job_error() -> AbstractContextManager[None]:
    """Exit with a message when the block, a job, raises; Hydra would add a line of its own.

    In a sweep the launcher needs the exception, so nothing is done.
    """
    return nullcontext() if swept() else exit_on_error(explain)


def explain(error: Exception) -> str | None:
    """Word an error of Hydra, OmegaConf or a resolver; return None for any other error."""
    for cause in _chain(error):
        if isinstance(cause, UserError):  # raised in a resolver
            return str(cause)
    innermost: BaseException = error
    while isinstance(innermost, HydraException) and innermost.__cause__ is not None:
        innermost = innermost.__cause__
    problem = innermost if isinstance(innermost, OmegaConfBaseException) else error
    for kind, wording in WORDINGS:
        if isinstance(problem, kind):
            return wording(problem, str(error).strip())
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the latest first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _no_such_option(error: MissingConfigException, message: str) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    what = f"{group}={option}: no such option" if group else f"--config-name={option}: no such config in {CONF}"
    return what + did_you_mean(option, options(group or "."))


def _no_override(error: OverrideParseException, message: str) -> str:
    lines = [line for line in message.splitlines() if not line.startswith(("Error parsing", "See http"))]
    reason = lines[0] if lines else "not an override"
    return f"cannot read {error.override!r} ({reason}); write KEY=VALUE, in quotes if it holds brackets or spaces"


def _no_such_key(error: OmegaConfBaseException, message: str) -> str:
    """Suggest what may be meant by a key that is not in the config."""
    key, parent = str(error.full_key), error.parent_node
    if of_a_group := why_no_key(key):
        return of_a_group
    text = f"{key}: no such key"
    if "/" in key:
        text += did_you_mean(key, [*(group for group in all_groups() if "/" in group), key.replace("/", ".")])
    elif isinstance(parent, DictConfig):
        text += did_you_mean(
            str(error.key), [str(name) for name in parent if name != "hydra" and not str(name).startswith("_")]
        )
    group, _, name = key.replace(".", "/").rpartition("/")
    if group and name in options(group):
        plus = "+" if group in overrides.ADDED else ""
        return f"{text}; {name} is an option of {group}: {plus}{group}={name}"
    add = re.search(r"To append to your config use (.*)", message)
    # a mapping takes any key, unless it is a call, a group or one of Hydra's
    free = "." in key and isinstance(parent, DictConfig) and "_target_" not in parent
    if add and free and group not in all_groups() and not (key.startswith("hydra.") and len(parent)):
        text += f"; to add it, write {add[1]}"
    return text + options_with(group, {name})


def _wrong_value(error: OmegaConfBaseException, message: str) -> str:
    return f"{error.full_key}: {str(error.msg).partition(FOOTER)[0]}"


def _other_of_hydra(error: HydraException, message: str) -> str:
    several = re.match(r"Ambiguous value for argument '(.*)'\n", message)
    if several:
        key, _, value = re.sub(r"[\\'\"]", "", several[1]).partition("=")
        return f"{key}={value} is several values: write '{key}=[{value}]' for a list, or add -m to train with each"
    if "Could not override '" in message or message.startswith("Multiple values for "):
        return f"{message.splitlines()[0]} A file chooses an option with 'override /GROUP: OPTION', GROUP as in conf/"
    absent = re.match(r"Could not delete from config\. '(.*)' does not exist\.", message)
    return f"~{absent[1]}: there is nothing to delete: the key is not there, or is null" if absent else message


def _unusable_folder(error: OSError, message: str) -> str:
    """Hydra makes the run folder; what the run itself cannot read or write comes as a RunError."""
    if error.errno == errno.ENAMETOOLONG:
        return f"a key or a path is too long: ...{str(error.filename)[-40:]}"
    what = f"cannot use {error.filename}" if error.filename else "cannot write the run folder"
    return f"{what}: {error.strerror or error}; choose another folder with hydra.run.dir=FOLDER"


WORDINGS: tuple[tuple[type[BaseException], Callable[..., str]], ...] = (  # the first that fits is taken
    (MissingConfigException, _no_such_option),
    (OverrideParseException, _no_override),
    (ConfigKeyError, _no_such_key),
    (ConfigAttributeError, _no_such_key),
    (OmegaConfBaseException, _wrong_value),
    (HydraException, _other_of_hydra),
    (OSError, _unusable_folder),
)
