"""Which image files cannot be read: found by decoding all of them once, and remembered in the folder of their map."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lossfit.data.stores.images import Decode
from lossfit.data.stores.mapped import WAIT, folder_of, key_of, known_errors
from lossfit.data.stores.passes import decode_all
from lossfit.errors import UserError
from lossfit.system import files, locks

CHECKED = "unreadable.json"

log = logging.getLogger(__name__)


def unreadable(
    root: Path, names: Sequence[str], decode: Decode, cache_dir: Path, workers: int, writes: bool = True
) -> dict[int, str]:
    """Return for each of the files root/name that cannot be read, by its number, why.

    The result is kept in `cache_dir`, so that ranks, jobs of a sweep and later runs need not decode the files to know
    it. writes: whether it may be written there; without, it is used if it is there.
    """
    key = key_of(root, names, decode)
    folder = folder_of(root, key, cache_dir)
    shape = (len(names), *decode.shape)
    if (errors := _known(folder, key, shape)) is not None:
        return errors
    paths = [os.path.join(root, name) for name in names]
    if not writes:
        return _check(paths, decode, workers)
    with _locked(folder):
        if (errors := _known(folder, key, shape)) is None:
            errors = _check(paths, decode, workers)
            try:
                files.write_json(folder / CHECKED, {"key": key, "errors": errors})
            except OSError as error:
                log.warning("%s cannot be written (%s): the images are checked again by each run", folder, error)
    return errors


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made; on a disk that is full or read-only, go on without."""
    with ExitStack() as stack:
        with suppress(OSError, UserError):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.held(folder, WAIT))
        yield


def _known(folder: Path, key: str, shape: Sequence[int]) -> dict[int, str] | None:
    """Return what a map or an earlier check of the same files says; None if there is neither."""
    if (errors := known_errors(folder, key, shape)) is not None:
        return errors
    try:
        found = json.loads((folder / CHECKED).read_bytes())
        return {int(number): str(text) for number, text in found["errors"].items()} if found["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _check(paths: Sequence[str], decode: Decode, workers: int) -> dict[int, str]:
    errors: dict[int, str] = {}
    for batch in decode_all(paths, decode, workers, "to check them"):
        errors |= batch.errors
    return errors
