"""Images in folders: a folder for each class, or folders train, val and test with those in them."""

import errno
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from lossfit.data.dataset_files import DataError
from lossfit.data.folder.samples import SPLIT_NAMES, Samples
from lossfit.data.pictures import SUFFIXES
from lossfit.errors import counted, first_ten, printable

SILENT = frozenset({".ds_store", "desktop.ini", "icon\r", "thumbs.db"})  # files of file managers, in lower case
NO_CLASSES = frozenset({"__macosx", "@eadir", "lost+found"})  # folders of programs, in lower case

log = logging.getLogger(__name__)


def scan(root: Path) -> Samples:
    """Return all images below `root` with the folders that are their classes. Raises DataError for another layout.

    Images may lie in further folders of their class. Other files are counted in a line of the log.
    """
    check_is_folder(root)
    walk = _Walk(root)
    folders, images = walk.look("")
    splits = _split_folders(root, folders)
    if not folders:
        _refuse_without_classes(walk, "", images)
    if splits is None:
        classes = {("", name): list(walk.images(name)) for name in folders}
        _check_classes(walk, "", "", classes, images)
    else:
        classes = {}
        for folder, split in splits.items():
            inside, stray = walk.look(folder)
            if not inside:
                _refuse_without_classes(walk, folder, stray)
            found = {(split, name): list(walk.images(f"{folder}/{name}")) for name in inside}
            _check_classes(walk, folder, split, found, stray)
            classes |= found
    _warn_of_similar_names(root, sorted({name for _, name in classes}))
    walk.report()
    rows = [(name, label, split) for (split, label), names in classes.items() for name in names]
    return Samples(
        root,
        names=[name for name, _, _ in rows],
        columns=("class",),
        cells=[(label,) for _, label, _ in rows],
        given=None if splits is None else [split for _, _, split in rows],
        source=str(root),
    )


def check_is_folder(root: Path) -> None:
    """Raise DataError for a data.dir that is no folder."""
    try:
        is_folder, is_there = root.is_dir(), root.exists()
    except OSError as error:
        raise DataError(f"dir={root} cannot be read: {error.strerror}") from error
    if not is_there:
        here = "" if root.is_absolute() else f" in {Path.cwd()}"
        raise DataError(f"dir={root} does not exist{here}: give the folder of your images, data.dir=FOLDER")
    if not is_folder:
        table = f", and a table as data.table={root.name}" if root.suffix.lower() in (".csv", ".tsv") else ""
        raise DataError(f"dir={root} is a file: give the folder that it is in{table}")


class _Walk:
    """Looks into folders, and counts what is no image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: Counter[str] = Counter()
        self.dangling: list[str] = []

    def look(self, folder: str) -> tuple[list[str], list[str]]:
        """Return the names of the folders in a folder and the paths of the images, both sorted, without hidden ones."""
        folders, images = [], []
        try:
            with os.scandir(self.root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                name = entry.name.lower()
                if name in SILENT or name in NO_CLASSES:
                    continue
                if entry.name.startswith("."):
                    self.others["hidden"] += 1
                elif _is_loop(entry):
                    self.dangling.append(_join(folder, entry.name))
                elif entry.is_dir():
                    folders.append(entry.name)
                elif os.path.splitext(name)[1] not in SUFFIXES:
                    self.others[os.path.splitext(name)[1] or "without a suffix"] += 1
                elif entry.is_file():
                    images.append(_join(folder, entry.name))
                elif entry.is_symlink():
                    self.dangling.append(_join(folder, entry.name))
                else:
                    self.others["no regular file"] += 1
        except OSError as error:
            raise DataError(f"dir={self.root}: {self.root / folder} cannot be read: {error.strerror}") from error
        return folders, images

    def images(self, folder: str, above: Sequence[tuple[int, int]] = ()) -> Iterator[str]:
        """Yield the paths of the images in a folder and all folders below it."""
        status = os.stat(self.root / folder)
        own = (status.st_dev, status.st_ino)
        if own in above or os.path.samestat(status, os.stat(self.root)):
            raise DataError(
                f"dir={self.root}: the link {self.root / folder} leads back to a folder that it is in: remove it"
            )
        folders, images = self.look(folder)
        yield from images
        for name in folders:
            yield from self.images(_join(folder, name), (*above, own))

    def report(self) -> None:
        """Refuse links to nowhere, and log what was not used."""
        if self.dangling:
            raise DataError(
                f"dir={self.root}: {counted(self.dangling, 'link')} to images that are not there "
                f"({first_ten(self.dangling)}): remove them, or put their images back"
            )
        if self.others:
            log.info("%s: files that are no images are not used: %s", self.root, self.in_words())

    def in_words(self) -> str:
        """Return how many files of which kind there are beside images."""
        return first_ten([f"{number:,} {printable(kind)}" for kind, number in self.others.most_common()])


def _split_folders(root: Path, folders: Sequence[str]) -> dict[str, str] | None:
    """Return the split of each folder, if they are splits and not classes."""
    splits = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
    others = [name for name in folders if name not in splits]
    if "train" not in splits.values():
        if splits and not others:
            raise DataError(f"dir={root} has the splits {first_ten(list(splits))} and no folder train: add it")
        return None
    if len(splits) == 1 and others:
        return None  # a class that is named train
    if others:
        raise DataError(
            f"dir={root} has {first_ten(list(splits))} and beside them {first_ten(others)}: keep only the folders "
            f"train, val and test in it, or only the folders of classes"
        )
    for split in set(splits.values()):
        same = [name for name, its in splits.items() if its == split]
        if len(same) > 1:
            raise DataError(f"dir={root} has {' and '.join(same)}, which both mean {split}: keep one of them")
    return splits


def _check_classes(
    walk: _Walk, folder: str, split: str, classes: dict[tuple[str, str], list[str]], stray: Sequence[str]
) -> None:
    """Refuse classes without images, and warn of images without a class."""
    folders = [name for _, name in classes]
    if not any(classes.values()):
        there = f"; there are only {walk.in_words()}" if walk.others else ""
        raise DataError(f"{_told(walk, folder)} has no images in its folders ({first_ten(folders)}){there}")
    empty = [name for (_, name), names in classes.items() if not names]
    if empty and split in ("", "train"):
        there = f" (beside images, there are {walk.in_words()})" if walk.others else ""
        raise DataError(
            f"{_told(walk, folder)} has {counted(empty, 'class', 'classes')} without images: "
            f"{first_ten(empty)}{there}: remove these folders, or add images to them"
        )
    if len(folders) == 1 and not split:
        raise DataError(
            f"dir={walk.root} has images of one class, {folders[0]!r}: it needs a folder for each of at least two "
            f"classes; if the classes are the folders in {folders[0]!r}, give data.dir={walk.root / folders[0]}"
        )
    if stray:
        log.warning("%s: not used, since in no class: %s", walk.root, first_ten(stray))


def _refuse_without_classes(walk: _Walk, folder: str, images: Sequence[str]) -> None:
    if images:
        tables = sorted(path.name for path in walk.root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
        raise DataError(
            f"{_told(walk, folder)} has {counted(images, 'image')} and no folders: put the images of each class into a "
            f"folder, or name a table of their targets with data.table={tables[0] if tables else 'labels.csv'}"
        )
    there = f"; it has {walk.in_words()}" if walk.others else " and no folders"
    raise DataError(f"{_told(walk, folder)} has no images{there}: it needs a folder for each class, with images in it")


def _told(walk: _Walk, folder: str) -> str:
    return f"dir={walk.root}: {folder}" if folder else f"dir={walk.root}"


def _warn_of_similar_names(root: Path, names: Sequence[str]) -> None:
    alike = defaultdict(list)
    for name in names:
        alike[name.casefold()].append(name)
    for same in alike.values():
        if len(same) > 1:
            log.warning("%s: the classes %s differ only in upper and lower case", root, " and ".join(same))


def _is_loop(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a link that leads to itself, so that the system cannot follow it."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
