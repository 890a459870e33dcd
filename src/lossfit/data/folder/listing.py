"""The file of a run folder that says which image was in which split, by which a resumed run sees changed data."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lossfit.data.folder.samples import Samples
from lossfit.errors import DataChanged, UserError, counted, first_ten, one_line, printable
from lossfit.system.files import read_bytes

HEADER = ("path", "split", "target", "bytes")


def text(samples: Samples, splits: Sequence[str]) -> str:
    """Return the list of all images as CSV, in the order of their paths."""
    rows = sorted(
        (name, split, ";".join(cells), str(size))
        for name, split, cells, size in zip(samples.names, splits, samples.cells, samples.sizes, strict=True)
    )
    return _csv([HEADER, *rows])


def skipped_text(root: Path, errors: dict[str, str]) -> str:
    """Return the list of images that cannot be read as CSV, with the reasons. errors: they begin with root/name."""
    rows = ((name, reason.removeprefix(f"{root / name}: ")) for name, reason in sorted(errors.items()))
    return _csv([("path", "reason"), *rows])


def check_unchanged(file: Path, now: str) -> None:
    """Raise DataChanged if the list of a run differs from the list now."""
    try:
        before = read_bytes(file).decode(errors="surrogateescape")
    except FileNotFoundError:
        return  # the run stopped before it was written, so nothing was trained; or a checkpoint outside of its run
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}") from error
    if before == now:
        return
    changes = _changes(_rows(before), _rows(now)) or ["its file has been edited"]
    raise DataChanged(
        f"the images are not those that this run began with: {'; '.join(changes)}",
        f"Put them back, or start a new run; its weights go on with init_from={file.parent}",
    )


def _changes(before: dict[str, list[str]], now: dict[str, list[str]]) -> list[str]:
    """Say which images are gone, new or different, a text for each kind of change."""
    shared = before.keys() & now.keys()
    other = {HEADER[i]: [name for name in shared if before[name][i - 1] != now[name][i - 1]] for i in range(1, 4)}
    kinds = {
        "gone": [*before.keys() - now.keys()],
        "added": [*now.keys() - before.keys()],
        "with another target": other["target"],
        "with other bytes": other["bytes"],
        "in another split": other["split"],
    }
    return [f"{counted(names, 'image')} {kind} ({first_ten(sorted(names))})" for kind, names in kinds.items() if names]


def _rows(content: str) -> dict[str, list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(content, newline="")))[1:]
    except csv.Error:
        return {}
    return {row[0]: [printable(cell) for cell in row[1:]] for row in rows if len(row) == len(HEADER)}


def _csv(rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()
