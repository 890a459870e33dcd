"""A command line, checked and made readable for Hydra: sweeps to resume, paths, groups and their options."""

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from lossfit import overrides as override_keys
from lossfit import sweeps
from lossfit.errors import UserError
from lossfit.option_files import CONF, all_groups, options
from lossfit.runs import trust
from lossfit.system.ranks import end_with_parent, started_rank

MULTIRUN = ("-m", "--multirun")
SEVERAL = (*override_keys.ADDED, "metrics", "experiment", "debug")  # groups with none or several options


def check_ranks(arguments: Sequence[str]) -> None:
    """Refuse a command line with which the ranks of torchrun or srun would not all train one run folder.

    A rank that passes the check ends together with torchrun's agent.
    """
    if started_rank() is None:
        return
    given = {override_keys.key(argument): override_keys.value(argument) for argument in arguments}
    if given.keys() & set(MULTIRUN):
        raise UserError("-m: start a sweep as one process, without torchrun or srun; each job starts its own ranks")
    if "resume" in given:
        raise UserError(
            f"resume={given['resume']}: several ranks resume a run with `-m lossfit FOLDER` in the place of train.py; "
            f"what is to change, such as trainer.max_epochs, is written into its config.yaml"
        )
    if "hydra.run.dir" not in given:
        raise UserError("hydra.run.dir has no value, and several ranks need one: give hydra.run.dir=FOLDER to them all")
    end_with_parent()


def arguments(typed: list[str]) -> list[str]:
    """Return a command line for Hydra, options first; raise UserError for an override that cannot be meant.

    `resume=SWEEP` becomes the saved command of that sweep; newly typed overrides replace its old ones.
    """
    if "trust_code=true" in typed:
        os.environ[trust.VARIABLE] = "1"  # before the command of a sweep is read
    flags = [one for one in typed if one in MULTIRUN or (one.startswith("--") and "=" in one)]
    overrides = [readable(one) for one in typed if one not in flags]
    override_keys.check_added(overrides)
    for override in overrides:
        folder = Path(override_keys.value(override).strip("'\""))
        if override_keys.key(override) == "resume" and sweeps.is_sweep(folder):
            now = override_keys.by_key(other for other in [*flags, *overrides] if other not in (override, *MULTIRUN))
            old = override_keys.by_key(sweeps.read_command(folder))
            extend = ["hydra.sweeper.extend=true"] if now else []
            return ["--multirun", *(old | now).values(), f"hydra.sweep.dir={quoted(str(folder))}", *extend]
    return [*flags, *overrides]


def readable(override: str) -> str:
    """Return an override; a path that Hydra would read as something else is put in quotes.

    Raises UserError for one that sets a key where a group is meant, or a group to something that is no option.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except HydraException:
        parsed = None
    if parsed is not None:
        _check_group(parsed)
    key = override_keys.key(override)
    if key not in override_keys.PATHS or "=" not in override:
        return override
    value = override_keys.value(override).strip()
    if not value.strip("'\""):
        raise UserError(f"{key} has no value: give {key}=FOLDER")
    if value[0] in "'\"":
        return override
    if parsed is not None and (parsed.is_sweep_override() or isinstance(parsed.value(), str | None)):
        return override
    return override_keys.with_value(override, quoted(os.path.expanduser(value)))


def quoted(text: str) -> str:
    """Return a text in quotes, so that Hydra reads it literally."""
    return QuotedString(text, Quote.single).with_quotes()


def _check_group(override: Override) -> None:
    """Refuse a group without an option, or with something that is none, and a key that has the name of a group."""
    key, value, line = override.key_or_group, override.value(), override.input_line
    values = [_text_or_value(one) for one in value.list] if isinstance(value, ChoiceSweep) else [value]
    if "." in key and (group := key.replace(".", "/")) in all_groups():
        for one in values:
            if isinstance(one, str):
                raise UserError(f"{line}: {group} is a group, written with a slash: {_how_to_choose(group, one)}")
    if key not in all_groups() or all(isinstance(one, dict | Sweep | Glob) for one in values):
        return
    if override.is_delete():
        if key in override_keys.ADDED:
            raise UserError(f"{line}: {key} is a list: for none write {key}=[]")
        if value is not None:
            raise UserError(f"{line}: write ~{key}, without a value")
        return
    if (override.is_add() or override.is_force_add()) and key not in override_keys.ADDED:
        raise UserError(f"{line}: one option of {key} is chosen already: write {key}=OPTION, without +")
    for one in values:
        several = one if isinstance(one, list) else [one]
        if not all(isinstance(option, str) for option in several):
            raise UserError(f"{line}: {'null' if one is None else one} is no option: {_how_to_choose(key)}")
        if len(several) > 1 and key not in SEVERAL:
            raise UserError(f"{line}: {key} has one option: write {key}=OPTION, or -m {key}=A,B to train with each")


def _text_or_value(value: object) -> object:
    return value.text if isinstance(value, QuotedString) else value


def _how_to_choose(group: str, option: str = "OPTION") -> str:
    """Say how to choose an option of a group, or none."""
    known = options(group)
    if option in known:
        return f"write {group}={option}"
    if not known:
        return "write " + " or ".join(f"{group}/{path.name}=OPTION" for path in sorted((CONF / group).iterdir()))
    none = f"; for none write {group}={'none' if 'none' in known else '[]'}"
    return f"write {group}=OPTION (known: {', '.join(known)}){none if group in SEVERAL or 'none' in known else ''}"
