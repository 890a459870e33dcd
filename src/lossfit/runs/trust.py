"""Which configs may name code: those that a person composed on this machine, and no others.

A run folder and a sweep folder are signed when they are made, with a key that only this person's account has. A folder
without a right signature came from elsewhere: its config is data, and may name what the YAML files of conf/ name, with
the keys that they list, and nothing else. Imports no torch.
"""

import functools
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from lossfit.errors import ConfigError, UserError
from lossfit.plain_values import is_plain, shown
from lossfit.runs import names
from lossfit.system import files

CONF = Path(__file__).parents[3] / "conf"
VARIABLE = "LOSSFIT_TRUST_CODE"  # 1: every folder is trusted; what trust_code=true sets, for jobs and ranks too
KEY_SIZE = 32  # bytes
REMOTE = "lightning.pytorch.loggers."  # send what they log to a server
UNLISTED = {"lossfit.callbacks.Pruning": frozenset({"monitor", "pruner"})}  # added to a trial by the search
PATHS = ("dir", "init_from")  # keys whose values are paths of data that is only read
_composed: set[bytes] = set()  # digests of what this process has signed, for an account without a place for the key
ADVICE = (
    "it was not made by this account on this machine, or was changed since: if you trust whoever wrote it, add "
    "trust_code=true"
)


def sign(folder: Path, content: bytes) -> None:
    """Note that `content`, a config or a command, was composed by this account for the folder.

    An account without a folder for the key, as in some containers, leaves no signature: own code in such a folder is
    trusted in the process that made it only.
    """
    _composed.add(hashlib.sha256(content).digest())
    with suppress(OSError, ValueError):
        known = _signatures(folder)
        own = _of(content, _key(make=True))
        if own not in known:
            files.write(folder / names.SIGNATURE, "".join(f"{line}\n" for line in [*known, own]))


def is_trusted(folder: Path, content: bytes) -> bool:
    """Whether this account composed the content for the folder, or the person said trust_code=true."""
    return os.environ.get(VARIABLE) == "1" or is_own(folder, content)


def is_own(folder: Path, content: bytes) -> bool:
    """Whether this account composed the content for the folder."""
    if hashlib.sha256(content).digest() in _composed:
        return True
    with suppress(OSError, ValueError):
        own = _of(content, _key(make=False))
        return any(hmac.compare_digest(own, line) for line in _signatures(folder))
    return False


def check(config: dict[str, Any], folder: Path) -> None:
    """Refuse a config from elsewhere that names more than the options of conf/ do; raise ConfigError with every place.

    A config that passes may still train on data and write into its own folder.
    """
    mistakes = list(_foreign(config, "")) if is_plain(config) else ["it holds more than plain values"]
    if mistakes:
        raise ConfigError("\n".join([*mistakes, f"{folder / names.CONFIG}: {ADVICE}"]))


def check_command(folder: Path, content: bytes) -> None:
    """Refuse to repeat the command of a sweep folder that came from elsewhere."""
    if not is_trusted(folder, content):
        raise UserError(f"resume={folder} would run the command in its {names.COMMAND}, and {ADVICE}")


def _foreign(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _foreign(item, f"{key}[{i}]")
        return
    name = key.rpartition(".")[2]
    if isinstance(node, str) and name not in (*PATHS, "_target_") and _is_path(node):
        yield f"{key}={shown(node)} is a path or an address, which a config from elsewhere may not give"
    if not isinstance(node, dict):
        return
    if "_target_" in node:
        target = node["_target_"]
        listed = options().get(target) if isinstance(target, str) else None
        if listed is None:
            yield f"{key}._target_={shown(target)} is not one of the options of conf/"
            return
        for extra in sorted(map(str, set(node) - listed)):
            yield f"{key}: {shown(extra)} is not a key that conf/ lists for {target}"
    for inner, value in node.items():
        if inner != "choices":
            yield from _foreign(value, f"{key}.{inner}" if key else str(inner))


def _is_path(text: str) -> bool:
    return (
        text.startswith(("/", "~", "\\")) or ".." in text or "://" in text or (text[:1].isalpha() and text[1:2] == ":")
    )


@functools.cache
def options() -> dict[str, frozenset[str]]:
    """Return the targets that conf/ names, less own code and remote loggers, and the keys that it lists for each."""
    found: dict[str, frozenset[str]] = dict(UNLISTED)
    for file in sorted(CONF.rglob("*.yaml")):
        for node in _nodes(yaml.safe_load(file.read_text(encoding="utf-8"))):
            target = node["_target_"]
            if ".custom." not in target and not target.startswith(REMOTE):
                groups = {folder.name for folder in file.parent.iterdir() if folder.is_dir()}  # data.mix
                found[target] = found.get(target, frozenset()) | set(map(str, node)) | groups
    return found


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a _target_ in a YAML file."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node
        for value in node.values():
            yield from _nodes(value)


def _of(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _signatures(folder: Path) -> list[str]:
    try:
        return (folder / names.SIGNATURE).read_text(encoding="ascii", errors="replace").split()[:1000]
    except FileNotFoundError:
        return []


def _key(make: bool) -> bytes:
    """Return this account's key, 32 random bytes in its state folder, which are drawn at the first use."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    file = Path(state) / "lossfit" / "key"
    if make and not (file.exists() and file.stat().st_size == KEY_SIZE):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = file.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(KEY_SIZE))
                stream.flush()
                os.fsync(stream.fileno())
            if file.exists():  # damaged
                os.replace(part, file)
            else:
                with suppress(FileExistsError):
                    os.link(part, file)  # another process may have been first
        finally:
            part.unlink(missing_ok=True)
    key = file.read_bytes()
    if len(key) != KEY_SIZE:
        raise ValueError(f"{file} is damaged")
    return key
