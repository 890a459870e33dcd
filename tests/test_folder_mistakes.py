"""Wrong folders, tables and options of data=folder: each is one clear line with the key, the value and the remedy."""

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lossfit.config import build, call, check
from lossfit.errors import ConfigError, UserError
from tests import photos
from tests.conftest import compose

ROWS = [("file", "class"), *((f"{i}.png", "ab"[i % 2]) for i in range(20))]
NUMBERS = [("file", "age"), *((f"{i}.png", i + 0.5) for i in range(20))]


def nothing(folder: Path) -> None:
    """No folder is made."""


def a_file(folder: Path) -> None:
    folder.write_text("no folder")


def an_empty_folder(folder: Path) -> None:
    folder.mkdir()


def flat(folder: Path) -> None:
    photos.make(folder, {".": 5})


def flat_beside_a_table(folder: Path) -> None:
    photos.make(folder, {".": 5})
    (folder / "age.csv").write_text("file,age\n")


def one_class(folder: Path) -> None:
    photos.make(folder, {"imagenet/cat": 5, "imagenet/dog": 5})


def an_empty_class(folder: Path) -> None:
    photos.make(folder)
    (folder / "bird").mkdir()
    (folder / "bird" / "photo.heic").touch()


def only_other_files(folder: Path) -> None:
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "photo.heic").touch()


def a_single_image(folder: Path) -> None:
    photos.make(folder, {"cat": 5, "dog": 5, "bird": 1})


def no_train(folder: Path) -> None:
    photos.make(folder, {"val/cat": 5, "test/cat": 5})


def two_vals(folder: Path) -> None:
    photos.make(folder, {f"{split}/{name}": 3 for split in ("train", "val", "valid") for name in ("cat", "dog")})


def splits_beside_classes(folder: Path) -> None:
    photos.make(folder, {"train/cat": 3, "test/cat": 3, "dog": 3})


def a_split_without_classes(folder: Path) -> None:
    photos.make(folder, {"train/cat": 3, "train/dog": 3, "val": 3})


def an_empty_split(folder: Path) -> None:
    photos.make(folder, {"train/cat": 3, "train/dog": 3})
    (folder / "val").mkdir()


def a_class_that_train_lacks(folder: Path) -> None:
    photos.make(folder, {"train/cat": 3, "train/dog": 3, "val/cat": 3, "val/bird": 3})


def given_splits(folder: Path) -> None:
    photos.make(folder, {f"{split}/{name}": 3 for split in ("train", "test") for name in ("cat", "dog")})


def a_loop(folder: Path) -> None:
    photos.make(folder)
    (folder / "cat" / "again").symlink_to(folder / "cat", target_is_directory=True)


def a_loop_to_the_top(folder: Path) -> None:
    photos.make(folder)
    (folder / "dog" / "all").symlink_to(folder, target_is_directory=True)


def a_link_to_nowhere(folder: Path) -> None:
    photos.make(folder)
    (folder / "cat" / "lost.png").symlink_to(folder / "elsewhere.png")


def a_link_to_itself(folder: Path) -> None:
    photos.make(folder)
    (folder / "cat" / "round.png").symlink_to("round.png")


def a_class_with_an_odd_name(folder: Path) -> None:
    photos.make(folder, {"cat": 3, "dog\n": 3})


def damaged(folder: Path) -> None:
    photos.make(folder, {"cat": 20, "dog": 20})
    for i in range(11):
        (folder / "dog" / f"{i:02}.png").write_text("no image")
    torn = folder / "cat" / "19.png"
    torn.write_bytes(torn.read_bytes()[:-60])


def all_damaged(folder: Path) -> None:
    photos.make(folder, {"cat": 3, "dog": 3})
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")


def a_class_of_damaged_ones(folder: Path) -> None:
    photos.make(folder, {"cat": 5, "dog": 5, "bird": 3})
    for file in (folder / "bird").iterdir():
        file.write_bytes(b"")


def a_bomb(folder: Path) -> None:
    """A file whose header says that it has 200 million pixels."""
    photos.make(folder)
    file = folder / "cat" / "00.png"
    content = bytearray(file.read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 10_000)  # width and height in the first chunk, whose checksum follows
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    file.write_bytes(content)


def a_table(*rows: tuple[Any, ...], mark: str = ",") -> Callable[[Path], None]:
    return lambda folder: photos.table(folder, rows, mark=mark) and None


def raw_table(content: bytes, name: str = "labels.csv") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        photos.make(folder, {".": 4})
        (folder / name).write_bytes(content)

    return make


def a_table_of(line: str) -> Callable[[Path], None]:
    """A good table with one more line."""

    def make(folder: Path) -> None:
        photos.table(folder, ROWS)
        with (folder / "labels.csv").open("a") as file:
            file.write(f"{line}\n")

    return make


TABLE = "data.table=labels.csv"
CASES: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    # folders
    "not there": (nothing, [], r"data\.dir=.*photos does not exist.*: give the folder of your images, data.dir=FOLDER"),
    "a file": (a_file, [], r"data\.dir=.*photos is a file: give the folder"),
    "empty": (
        an_empty_folder,
        [],
        r"data\.dir=.*photos has no images and no folders: it needs a folder for each class",
    ),
    "flat": (
        flat,
        [],
        r"data\.dir=.*photos has 5 images and no folders: .* or name a table .* data\.table=labels\.csv",
    ),
    "flat with a table": (flat_beside_a_table, [], r"has 5 images and no folders: .*data\.table=age\.csv"),
    "one level too high": (one_class, [], r"one class, 'imagenet'.*give data\.dir=.*photos/imagenet$"),
    "an empty class": (
        an_empty_class,
        [],
        r"has 1 class without images: bird .*1 \.heic.*: remove these folders, or",
    ),
    "no images": (only_other_files, [], r"has no images in its folders \(cat\); there are only 1 \.heic"),
    "a class of one image": (a_single_image, [], r"1 class with fewer than two images.*: bird; add .*data\.classes"),
    "no train": (no_train, [], r"data\.dir=.*photos has the splits test, val and no folder train: add it"),
    "val and valid": (two_vals, [], r"has val and valid, which both mean val: keep one of them"),
    "splits and classes": (splits_beside_classes, [], r"has test, train and beside them dog: keep only the folders"),
    "val is flat": (a_split_without_classes, [], r"photos: val has 3 images and no folders: put the images of each"),
    "val is empty": (an_empty_split, [], r"photos: val has no images and no folders: it needs a folder for each class"),
    "an unknown class": (a_class_that_train_lacks, [], r"val has 1 class that train has no image of \(bird\): move"),
    "a loop": (a_loop, [], r"data\.dir=.*the link .*cat/again leads back to a folder that it is in: remove it"),
    "a loop to the top": (a_loop_to_the_top, [], r"the link .*dog/all leads back to a folder that it is in: remove it"),
    "a link to nowhere": (
        a_link_to_nowhere,
        [],
        r"1 link to images that are not there \(cat/lost\.png\): remove them, or",
    ),
    "a link to itself": (a_link_to_itself, [], r"1 link to images that are not there \(cat/round\.png\): remove them"),
    "an odd class name": (a_class_with_an_odd_name, [], r"class names must be printable .*, got dog\\n$"),
    # images
    "unreadable": (
        damaged,
        [],
        r"data: 12 of 40 images cannot be read: \S+cat/19\.png: image file is truncated.*dog/00\.png: no image of a "
        r"known format.* and 2 more; replace or remove them, or leave them out with data\.skip_unreadable=true$",
    ),
    "unreadable, of store=decoded": (damaged, ["data.store=decoded"], r"12 of 40 images .* and 2 more; .*=true$"),
    "a limit that is no size": (photos.make, ["data.memory_limit=2 apples"], r"memory_limit must be a number of bytes"),
    "a limit that is too small": (
        photos.make,
        ["data.memory_limit=1kB"],
        r"data\.store=memory: .* need \d+ B, twice while .*, and 1000 B of memory are free; use data\.store=mapped$",
    ),
    "all unreadable": (all_damaged, ["data.skip_unreadable=true"], r"none of the 6 images .*00\.png: an empty file"),
    "a class of unreadable ones": (
        a_class_of_damaged_ones,
        ["data.skip_unreadable=true"],
        r"1 class with fewer than two images, .*: bird; add images, or name the other classes in data\.classes",
    ),
    "a bomb": (a_bomb, [], r"00\.png: more than 178,956,970 pixels; scale it down"),
    # tables
    "no table": (
        flat_beside_a_table,
        [TABLE],
        r"data\.table=labels\.csv: there is no such file in data\.dir=.*age\.csv",
    ),
    "no table at all": (flat, [TABLE], r"data\.table=labels\.csv: there is no such file .*, and no other table"),
    "a spreadsheet": (
        flat,
        ["data.table=labels.xlsx"],
        r"data\.table=labels\.xlsx must be a \.csv or \.tsv file, got .xlsx",
    ),
    "an empty table": (
        raw_table(b""),
        [TABLE],
        r"data\.table=labels\.csv is empty: its first row must name its columns",
    ),
    "only a header": (raw_table(b"file,class\n"), [TABLE], r"labels\.csv has a header and no rows: add a row"),
    "semicolons": (raw_table(b"file;class\n00.png;a\n"), [TABLE], r"one column, 'file;class': separate .* by commas"),
    "commas in tsv": (
        raw_table(b"file,class\n00.png,a\n", "labels.tsv"),
        ["data.table=labels.tsv"],
        r"one column, 'file,class': separate its cells by tabs",
    ),
    "one column": (
        raw_table(b"file\n00.png\n"),
        [TABLE],
        r"one column, 'file': it needs one for paths and one for tar",
    ),
    "latin-1": (raw_table("file,class\n00.png,é\n".encode("latin-1")), [TABLE], r"not UTF-8 \(byte 0xe9\): save it as"),
    "utf-16": (
        raw_table("file,class\n00.png,a\n".encode("utf-16")),
        [TABLE],
        r"not UTF-8 \(byte 0xff\): save it as CSV",
    ),
    "an open quote": (raw_table(b'file,class\n00.png,"a\n'), [TABLE], r"data\.table=labels\.csv is no CSV: line 2"),
    "a column twice": (
        raw_table(b"file,age,age\n00.png,1,2\n"),
        [TABLE],
        r"columns must have different names, .* got 'age'$",
    ),
    "an index of pandas": (
        raw_table(b",file,age\n0,00.png,1\n"),
        [TABLE],
        r"a first column without a name, .*index=False",
    ),
    "a column without a name": (raw_table(b"file,,age\n00.png,1,2\n"), [TABLE], r"columns must have .* got ''$"),
    "too many cells": (a_table_of("3.png,a,b"), [TABLE], r"row 22 has 3 cells and the header has 2: correct it"),
    "no path column": (
        a_table(*ROWS),
        [TABLE, "data.path_column=fil"],
        r"data\.path_column=fil: .*did you mean 'file'",
    ),
    "no target column": (
        a_table(*NUMBERS),
        [TABLE, "data.target_columns=[agee]"],
        r"data\.target_columns=agee: table=labels\.csv has no such column \(did you mean 'age'\?\)",
    ),
    "no header": (
        raw_table(b"00.png,a\n01.png,b\n"),
        [TABLE],
        r"labels\.csv has an image in its first row, '00\.png': that row must name the columns",
    ),
    "commas for points": (
        raw_table(b'file,age\n00.png,3\n01.png,"0,5"\n'),
        [TABLE],
        r"column 'age' has numbers with a comma, such as '0,5': write them with a point, or .*task=classification$",
    ),
    "only a split": (
        a_table(("file", "split"), ("a.png", "train")),
        [TABLE],
        r"none for the target beside 'file': add",
    ),
    "paths that are not there": (
        a_table_of("100.png,a\n101.png,b"),
        [TABLE],
        r"2 paths without a file \(row 22: 100\.png, row 23: 101\.png\): paths are relative to data\.dir=",
    ),
    "all without a suffix": (raw_table(b"id,class\n00,a\n01,b\n"), [TABLE], r"must have their suffix, as 00\.png$"),
    "no path": (a_table_of(",a"), [TABLE], r"1 path without a file \(row 22: no path\)"),
    "two rows": (
        a_table_of("3.png,a\n./4.png,a"),
        [TABLE],
        r"2 images in several rows \(3\.png in row 5 and row 22, 4\.png in row 6 and row 23\): keep one row",
    ),
    "no number": (
        a_table(*NUMBERS[:-2], ("18.png", "n/a"), ("19.png", "3_5"), ("20.png", "inf")),
        [TABLE],
        r"age has 3 cells without a finite number \(row 20: 18\.png: age = 'n/a', .*with a point for decimals; d",
    ),
    "no class": (
        a_table(("file", "class"), ("a.png", "x"), ("b.png", "y"), ("c.png", "")),
        [TABLE],
        r"column 'class' has 1 empty cell \(row 4: c\.png\): each image needs a class; with data\.task=multilabel",
    ),
    "several classes in a late row": (
        a_table(("file", "class"), ("a.png", "x"), ("b.png", "y"), ("c.png", "x;y")),
        [TABLE, "data.task=classification"],
        r"column 'class' has 1 image of several classes \(row 4: c\.png: x;y\): data\.task=multilabel takes them",
    ),
    "one class from several columns": (
        a_table(("file", "a", "b"), ("1.png", 0, 1), ("2.png", 1, 0)),
        [TABLE, "data.task=classification"],
        r"data\.task=classification needs one column of classes, got a, b: choose with data\.target_columns=\[a\]",
    ),
    "neither 0 nor 1": (
        a_table(("file", "a", "b"), ("1.png", 0, 1), ("2.png", 1, 2)),
        [TABLE, "data.task=multilabel"],
        r"data\.task=multilabel with several columns needs 0 or 1 in each, got '2' \(row 3: 2\.png, column 'b'\)",
    ),
    "texts and numbers": (
        a_table(("file", "age", "name"), ("a.png", 1, "x"), ("b.png", 2, "y")),
        [TABLE],
        r"target_columns must be one column of classes or only columns of numbers, got age, name, of which name",
    ),
    "a split of another name": (
        a_table(("file", "class", "split"), ("a.png", "x", "train"), ("b.png", "y", "holdout")),
        [TABLE],
        r"column 'split' must have train, val, test, and 1 row has another \(row 3: 'holdout'\)",
    ),
    "no row is for training": (
        a_table(("file", "class", "split"), ("a.png", "x", "val"), ("b.png", "y", "test")),
        [TABLE],
        r"no image has the split train; there are test, val",
    ),
    "a constant": (
        a_table(("file", "age"), *((f"{i}.png", 3) for i in range(20))),
        [TABLE],
        r"age: all training images",
    ),
    # options
    "a column without a table": (photos.make, ["data.path_column=file"], r"data\.path_column=file names a column, and"),
    "columns without a table": (
        photos.make,
        ["data.target_columns=[age]"],
        r"data\.target_columns=\['age'\] names a col",
    ),
    "values of folders": (photos.make, ["data.task=regression"], r"data\.task=regression needs a table of targets"),
    "an unknown class name": (
        photos.make,
        ["data.classes=[cat,dgo]"],
        r"data\.classes=dgo: .*\(did you mean 'dog'\?\)",
    ),
    "one class wanted": (photos.make, ["data.classes=[cat]"], r"only 1 class \(cat\): at least two are needed"),
    "a class twice": (
        photos.make,
        ["data.classes=[cat,cat]"],
        r"data\.classes must be different, got \['cat', 'cat'\]",
    ),
    "classes of values": (
        a_table(*NUMBERS),
        [TABLE, "data.classes=[a]"],
        r"data\.classes=\['a'\] are for classes, and",
    ),
    "folds of given splits": (
        given_splits,
        ["data.fold=0"],
        r"data\.fold=0 needs images without splits, and there are",
    ),
    "a fold too many": (photos.make, ["data.fold=5"], r"data\.fold must be from 0 to 4 with data\.folds=5, got 5"),
    "more folds than images": (
        photos.make,
        ["data.fold=0", "data.folds=50"],
        r"data\.folds must be at most .* 40, got 50",
    ),
    "shares": (
        photos.make,
        ["data.val_share=0.5", "data.test_share=0.5"],
        r"data\.val_share must be below 1 - test_sh",
    ),
    "three sizes": (
        photos.make,
        ["data.image_size=[8,8,3]"],
        r"data\.image_size must be one number or \[height, width\]",
    ),
}

WRONG_OPTIONS = {
    "data.resize=squash": r"data\.resize must be one of crop, pad, stretch, got 'squash'",
    "data.channels=gray": r"data\.channels must be one of rgb, grey, got 'gray'",
    "data.store=disk": r"data\.store must be one of auto, memory, mapped, decoded, got 'disk'",
    "data.task=segmentation": r"data\.task must be one of classification, multilabel, regression or null, got 'segment",
    "data.image_size=0": r"data\.image_size must be from 1 to 4096, got 0",
    "data.val_share=0": r"data\.val_share must be above 0 and below 1, got 0",
    "data.folds=1": r"data\.folds must be >= 2, got 1",
    "data.workers=-1": r"data\.workers must be >= 0 or null, got -1",
    "data.classes=cat": r"data\.classes must be a list .*got 'cat'",
}


def told(*arguments: Any) -> str:
    """The message with which the data are refused, one line."""
    with pytest.raises(UserError) as error:
        photos.read(*arguments)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_clear_line(name: str, tmp_path: Path) -> None:
    make, overrides, words = CASES[name]
    make(tmp_path / "photos")
    text = told(tmp_path / "photos", *overrides)
    assert text.startswith("data"), "the key, or data: where no key is at fault"
    assert re.search(words, text), text


@pytest.mark.parametrize("override", WRONG_OPTIONS)
def test_a_value_that_is_not_allowed_is_refused_before_any_file_is_read(override: str) -> None:
    with pytest.raises(ConfigError, match=WRONG_OPTIONS[override]):
        check(compose("data=folder", "data.dir=nowhere", override))


def test_the_folder_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"data\.dir has no value yet: give data\.dir=VALUE"):
        check(compose("data=folder"))
    with pytest.raises(ConfigError, match=r"^data\.dir has no value yet: give data\.dir=VALUE$"):
        check(compose("data=folder", "data.table=labels.csv"))


def test_a_table_that_is_not_there_is_told_with_the_other_mistakes(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos")
    with pytest.raises(ConfigError) as error:
        check(compose("data=folder", f"data.dir={folder}", "data.table=labels.csv", "data.folds=1"))
    assert [line.split("=")[0].split(" ")[0] for line in str(error.value).splitlines()] == ["data.table", "data.folds"]


def test_one_target_column_without_brackets_is_told_once(tmp_path: Path) -> None:
    folder = photos.table(tmp_path / "photos", NUMBERS)
    with pytest.raises(ConfigError) as error:
        check(compose("data=folder", f"data.dir={folder}", TABLE, "data.target_columns=age"))
    assert str(error.value) == "data.target_columns must be a list of texts or null, got 'age'"


def test_a_table_is_looked_for_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path from the working directory, as the shell completes it, is answered with the right one."""
    photos.table(tmp_path / "photos", ROWS)
    (tmp_path / "cwd").mkdir()
    config = photos.node(Path("photos"), "data.table=photos/labels.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"looked for in data\.dir=photos: give data\.table=labels\.csv$"):
        call(build(config, "data", seed=0).setup, "data")


@pytest.mark.parametrize("at", ["", "cat"])
def test_a_folder_that_cannot_be_read_is_named(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.make(tmp_path / "photos")
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if Path(path) == tmp_path / "photos" / at:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # the superuser may read everything
    assert told(tmp_path / "photos").endswith(f"{tmp_path / 'photos' / at} cannot be read: Permission denied")


def test_an_image_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos")
    (folder / "cat" / "00.png").unlink()
    (folder / "cat" / "00.png").symlink_to("/proc/self/mem")
    assert "cat/00.png: " in told(folder)
