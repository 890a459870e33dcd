"""The Hydra boundary of train.py: resolvers, the help page, and Hydra's errors in plain words. Imports no torch."""

import re
import uuid
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lossfit.errors import ConfigError, did_you_mean

CONF = Path(__file__).parents[2] / "conf"


def register_resolvers() -> None:
    """Make ${run_id:} (six random characters) and ${groups:} (the options of every group) known to configs."""
    OmegaConf.register_new_resolver("run_id", lambda: uuid.uuid4().hex[:6], use_cache=True, replace=True)
    OmegaConf.register_new_resolver("groups", groups, replace=True)


def resolved(cfg: DictConfig) -> tuple[dict, Path, list[str]]:
    """Return the job's plain config, its run folder and the overrides that were typed."""
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        raise ConfigError("\n".join(f"{key} has no value yet: give {key}=VALUE" for key in sorted(missing)))
    hydra = HydraConfig.get()
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    choices = {group: hydra.runtime.choices[group] for group in cfg if group in hydra.runtime.choices}
    return {**config, "choices": choices}, Path(hydra.runtime.output_dir), list(hydra.overrides.task)


def groups() -> str:
    """Describe every group and option by the first line of its file, for --help."""
    lines = []
    for group in sorted(path for path in CONF.iterdir() if path.is_dir()):
        lines.append(f"{group.name}=")
        for file in sorted(group.glob("*.yaml")):
            lines.append(f"  {file.stem:18} {meaning(file)}")
    return "\n".join(lines).replace("$", "$$")


def meaning(file: Path) -> str:
    """Return the first comment of a YAML file, after any package directive."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line.removeprefix("# ")
    return ""


def explain(error: Exception) -> str:
    """Word an error of Hydra or OmegaConf in a line or two; other errors speak for themselves."""
    while isinstance(error, (HydraException, OmegaConfBaseException)) and isinstance(error.__cause__, Exception):
        error = error.__cause__ 
    return str(error)
