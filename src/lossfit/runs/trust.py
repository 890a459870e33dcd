"""Which configs may name code: those that this user composed on this machine, and no others.

Run folders and sweep folders are signed when they are made, with a key that only the user's account has. A folder
without a valid signature comes from elsewhere: its config is data, and may only name the targets that the YAML files of
conf/ name, with the keys that they list. A run with such a config reads data, and downloads nothing. Imports no torch.
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
from lossfit.option_files import CONF, PRUNING
from lossfit.overrides import DATA_PATHS, PRETRAINED
from lossfit.plain_values import is_plain, shown
from lossfit.runs import names
from lossfit.system import files

VARIABLE = "LOSSFIT_TRUST_CODE"  # 1 if every folder is trusted; set by trust_code=true, and inherited by jobs and ranks
KEY_SIZE = 32  # bytes
REMOTE = "lightning.pytorch.loggers."  # these send the logged values to a server
UNLISTED = {PRUNING: frozenset({"monitor", "pruner"})}  # a search adds it to each trial
READ = (*DATA_PATHS, "data.table")  # keys whose values may be any paths, since nothing is written there
MODELS = "lossfit.models."
CACHE = "cache_dir"
_composed: set[bytes] = set()  # digests of the contents that this process has signed
ADVICE = (
    "it was not made by this account on this machine, or was changed since: if you trust whoever wrote it, add "
    "trust_code=true"
)


def sign(folder: Path, content: bytes) -> None:
    """Record that this account composed `content`, a config or a command, for the folder.

    Where the key cannot be stored, as in some containers, no signature is written, and only this process trusts the
    folder.
    """
    _composed.add(hashlib.sha256(content).digest())
    with suppress(OSError, ValueError):
        known = _signatures(folder)
        own = _of(content, _key(make=True))
        if own not in known:
            files.write(folder / names.SIGNATURE, "".join(f"{line}\n" for line in [*known, own]))


def is_trusted(folder: Path, content: bytes) -> bool:
    """Whether this account composed the content for the folder, or the user set trust_code=true."""
    return os.environ.get(VARIABLE) == "1" or is_own(folder, content)


def is_own(folder: Path, content: bytes) -> bool:
    """Whether this account composed the content for the folder."""
    if hashlib.sha256(content).digest() in _composed:
        return True
    with suppress(OSError, ValueError):
        own = _of(content, _key(make=False))
        return any(hmac.compare_digest(own, line) for line in _signatures(folder))
    return False


def check(config: dict[str, Any], folder: Path, resumes: bool = False) -> None:
    """Raise ConfigError, with every place, for a config from elsewhere that names more than the options of conf/ do.

    A config that passes can still read data, write into its own folder, and keep decoded images in the cache_dir of
    conf/. It gets no pretrained weights: those of `model` are refused, unless the run resumes from a checkpoint, which
    replaces them. Whoever trains it must not download its data.
    """
    mistakes = list(_foreign(config, "", resumes)) if is_plain(config) else ["it holds more than plain values"]
    if mistakes:
        raise ConfigError("\n".join([*mistakes, f"{folder / names.CONFIG}: {ADVICE}"]))


def check_command(folder: Path, content: bytes) -> None:
    """Raise UserError for the command of a sweep folder from elsewhere."""
    if not is_trusted(folder, content):
        raise UserError(f"resume={folder} would run the command in its {names.COMMAND}, and {ADVICE}")


def _foreign(node: Any, key: str, resumes: bool) -> Iterator[str]:
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _foreign(item, f"{key}[{i}]", resumes)
        return
    name = key.rpartition(".")[2]
    if name == CACHE and not (isinstance(node, str) and node in cache_folders()):
        yield f"{key}={shown(node)} is not {' or '.join(sorted(cache_folders()))}, and may not be written"
    elif isinstance(node, str) and key not in READ and name != "_target_" and _is_path(node):
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
    of_a_model = str(node.get("_target_")).startswith(MODELS)
    for inner, value in node.items():
        path = f"{key}.{inner}" if key else str(inner)
        if of_a_model and PRETRAINED.search(str(inner)):
            if value is not None and not (resumes and key == "model"):
                yield f"{path}={shown(value)} would download or read weights, which a config from elsewhere may not"
        elif inner != "choices":
            yield from _foreign(value, path, resumes)


def _is_path(text: str) -> bool:
    return (
        text.startswith(("/", "~", "\\")) or ".." in text or "://" in text or (text[:1].isalpha() and text[1:2] == ":")
    )


@functools.cache
def options() -> dict[str, frozenset[str]]:
    """Return the targets that conf/ names, without the custom ones and remote loggers, and the keys listed for each."""
    found: dict[str, frozenset[str]] = dict(UNLISTED)
    for file in sorted(CONF.rglob("*.yaml")):
        for node in _nodes(yaml.safe_load(file.read_text(encoding="utf-8"))):
            target = node["_target_"]
            if ".custom." not in target and not target.startswith(REMOTE):
                groups = {folder.name for folder in file.parent.iterdir() if folder.is_dir()}  # data.mix
                found[target] = found.get(target, frozenset()) | set(map(str, node)) | groups
    return found


@functools.cache
def cache_folders() -> frozenset[str]:
    """Return the folders for caches that conf/ names."""
    contents = (yaml.safe_load(file.read_text(encoding="utf-8")) for file in CONF.rglob("*.yaml"))
    return frozenset(node[CACHE] for content in contents for node in _nodes(content) if CACHE in node)


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping with a _target_ in the content of a YAML file."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node
        for value in node.values():
            yield from _nodes(value)


def _of(content: bytes, key: bytes) -> str:
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def _signatures(folder: Path) -> list[str]:
    try:
        text = files.read_bytes(folder / names.SIGNATURE).decode("ascii", errors="ignore")
        return text.split()[:1000]
    except (FileNotFoundError, ValueError):  # a pipe has none
        return []


def _key(make: bool) -> bytes:
    """Return this account's key: random bytes in its state folder, made at the first use."""
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
