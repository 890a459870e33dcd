"""A table of images and their targets: CSV, or TSV, with a header."""

import csv
import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from lossfit.data.dataset_files import DataError
from lossfit.data.folder.samples import SPLIT_NAMES, SPLITS, Samples
from lossfit.data.pictures import SUFFIXES
from lossfit.errors import counted, did_you_mean, first_ten, one_line
from lossfit.plain_values import is_name

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SPLIT = "split"  # the column that says the split of each image
LARGEST = 2**30  # bytes of a table


class Table:
    """A table whose header is read and whose columns are known.

    path: of the file. path_column: which column has the images' paths; null for the first. target_columns: which ones
    have the targets; null for all others but `split`.
    """

    def __init__(
        self, root: Path, table: str, path_column: str | None = None, target_columns: Sequence[str] | None = None
    ) -> None:
        self.root, self.name = root, table
        self.path = self._find()
        header = next(self._lines(), (0, []))[1]
        self.header = [name.strip() for name in header]
        if not any(self.header):
            raise DataError(f"table={table} is empty: its first row must name its columns, as path,class")
        self._check_header()
        self.path_column = self.header[0] if path_column is None else path_column
        self._check_names("path_column", [self.path_column])
        if target_columns is not None:
            self._check_names("target_columns", target_columns)
        split = [name for name in self.header if name.lower() == SPLIT and name not in (target_columns or ())]
        self.split_column = split[0] if split and split[0] != self.path_column else None
        rest = [name for name in self.header if name not in (self.path_column, self.split_column)]
        self.columns = list(rest if target_columns is None else target_columns)
        if not self.columns or self.path_column in self.columns:
            raise DataError(
                f"table={table} has the columns {first_ten(self.header)}, and none for the target beside "
                f"{self.path_column!r}: add one, or name them with data.path_column and data.target_columns"
            )

    def targets(self, rows: int) -> list[list[str]]:
        """Return the texts of the target columns of the first rows."""
        index = [self.header.index(name) for name in self.columns]
        return [[cells[i].strip() for i in index] for _, cells in islice(self._rows(), rows)]

    def samples(self) -> Samples:
        """Return all rows. Raises DataError for images that are not there and for rows that cannot be."""
        position = {name: i for i, name in enumerate(self.header)}
        rows = list(self._rows())
        if not rows:
            raise DataError(f"table={self.name} has a header and no rows: add a row for each image")
        paths = [cells[position[self.path_column]].strip() for _, cells in rows]
        names = [self._local(path) for path in paths]
        where = [f"row {number}" for number, _ in rows]
        self._check_there(names, where)
        self._check_once(names, where)
        index = [position[name] for name in self.columns]
        given = None
        if self.split_column is not None:
            given = self._splits([cells[position[self.split_column]].strip() for _, cells in rows], where)
        targets = [[cells[i].strip() for i in index] for _, cells in rows]
        return Samples(self.root, names, self.columns, targets, given, where, f"{self.path}")

    def _find(self) -> Path:
        suffix = Path(self.name).suffix.lower()
        if suffix not in SEPARATORS:
            raise DataError(f"table={self.name} must be a .csv or .tsv file, got {suffix or 'no suffix'}: save it so")
        path = self.root / self.name
        if os.path.isfile(path):
            if path.stat().st_size > LARGEST:
                raise DataError(f"table={self.name} has more than {LARGEST:,} bytes, which no table of images has")
            return path
        other = Path(self.name)
        if os.path.isfile(other):
            inside = other.resolve().is_relative_to(self.root.resolve())
            right = other.resolve().relative_to(self.root.resolve()) if inside else other.resolve()
            raise DataError(f"table={self.name} is looked for in data.dir={self.root}: give data.table={right}")
        there = sorted(file.name for file in self.root.iterdir() if file.suffix.lower() in SEPARATORS)
        hint = did_you_mean(self.name, there) if there else ", and no other table"
        raise DataError(f"table={self.name}: there is no such file in data.dir={self.root}{hint}")

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line that each row ends at, and its cells; rows without cells are left out."""
        separator = SEPARATORS[self.path.suffix.lower()]
        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=separator, strict=True)
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise DataError(
                f"table={self.name} is not UTF-8 (byte {error.object[error.start]:#04x}): save it as CSV UTF-8"
            ) from error
        except csv.Error as error:
            raise DataError(f"table={self.name} is no CSV: line {reader.line_num}: {one_line(error)}") from error
        except OSError as error:
            raise DataError(f"table={self.name} cannot be read: {error.strerror}") from error

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        for number, cells in islice(self._lines(), 1, None):
            if len(cells) != len(self.header):
                raise DataError(
                    f"table={self.name}: row {number} has {len(cells)} cells and the header has {len(self.header)}: "
                    f"correct it; a cell with a comma needs quotes"
                )
            yield number, cells

    def _check_header(self) -> None:
        if len(self.header) == 1:
            other = next((mark for mark in (";", "\t", "|", ",") if mark in self.header[0]), None)
            wanted = {",": "commas", "\t": "tabs"}[SEPARATORS[self.path.suffix.lower()]]
            remedy = f": separate its cells by {wanted}" if other else ": it needs one for paths and one for targets"
            raise DataError(f"table={self.name} has one column, {self.header[0]!r}{remedy}")
        images = [name for name in self.header if Path(name).suffix.lower() in SUFFIXES]
        if images and os.path.isfile(self.root / self._local(images[0])):
            raise DataError(
                f"table={self.name} has an image in its first row, {images[0]!r}: that row must name the columns, as "
                f"path,class: add it"
            )
        if not self.header[0]:
            raise DataError(
                f"table={self.name} has a first column without a name, as an index: leave it out (index=False in "
                f"pandas), or name it and give data.path_column"
            )
        wrong = [name for name in self.header if self.header.count(name) > 1 or not is_name(name)]
        if wrong:
            raise DataError(
                f"table={self.name}: columns must have different names, printable and of at most 200 characters, got "
                f"{first_ten([repr(name) for name in dict.fromkeys(wrong)])}"
            )

    def _check_names(self, key: str, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.header:
                raise DataError(f"{key}={name}: table={self.name} has no such column{did_you_mean(name, self.header)}")
        if len(set(names)) < len(names) or not names:
            raise DataError(f"{key} must name columns, each once, got {list(names)}")

    def _local(self, path: str) -> str:
        """Return a path as it is on this system: with / also where the table has the \\ of Windows."""
        if "\\" in path and not os.path.exists(self.root / path):
            path = path.replace("\\", "/")
        return os.path.normpath(path) if path else ""

    def _check_there(self, names: Sequence[str], where: Sequence[str]) -> None:
        missing = [i for i, name in enumerate(names) if not name or not os.path.isfile(self.root / name)]
        if not missing:
            return
        first = self.root / names[missing[0]]
        hint = f": paths are relative to data.dir={self.root}"
        if names[missing[0]] and os.path.isdir(first.parent):
            longer = sorted(file.name for file in first.parent.glob(f"{glob.escape(first.name)}.*"))
            if longer:
                hint = f": paths must have their suffix, as {longer[0]}"
        told = [f"{where[i]}: {names[i] or 'no path'}" for i in missing]
        raise DataError(f"table={self.name} has {counted(missing, 'path')} without a file ({first_ten(told)}){hint}")

    def _check_once(self, names: Sequence[str], where: Sequence[str]) -> None:
        rows = defaultdict(list)
        for name, row in zip(names, where, strict=True):
            rows[os.path.normpath(self.root / name)].append((name, row))
        twice = [f"{same[0][0]} in {' and '.join(row for _, row in same)}" for same in rows.values() if len(same) > 1]
        if twice:
            raise DataError(
                f"table={self.name} has {counted(twice, 'image')} in several rows ({first_ten(twice)}): keep one row "
                f"for each image; several classes of one image stand in its cell as a;b"
            )

    def _splits(self, cells: Sequence[str], where: Sequence[str]) -> list[str]:
        wrong = [i for i, cell in enumerate(cells) if cell.lower() not in SPLIT_NAMES]
        if wrong:
            told = first_ten([f"{where[i]}: {cells[i]!r}" for i in wrong])
            raise DataError(
                f"table={self.name}: column {self.split_column!r} must have {', '.join(SPLITS)}, and "
                f"{counted(wrong, 'row has', 'rows have')} another ({told}); data.target_columns takes it as a target"
            )
        return [SPLIT_NAMES[cell.lower()] for cell in cells]
