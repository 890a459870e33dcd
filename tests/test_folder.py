"""data=folder: the user's own images are found, get their targets, and are split."""

import csv
import logging
import os
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lossfit.data.folder import FolderDataModule
from lossfit.data.folder.samples import SPLITS
from lossfit.errors import UserError
from lossfit.runs import names
from tests import photos


def listed(data: FolderDataModule) -> dict[str, dict[str, str]]:
    """The rows of splits.csv, by path."""
    return {row["path"]: row for row in csv.DictReader(data.run_files[names.SPLITS].splitlines())}


def split_of(data: FolderDataModule) -> dict[str, str]:
    return {path: row["split"] for path, row in listed(data).items()}


def sizes(data: FolderDataModule) -> list[int]:
    assert [len(data.splits[split][0]) for split in SPLITS] == [len(data.splits[split][1]) for split in SPLITS]
    return [len(data.splits[split][0]) for split in SPLITS]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_folder_for_each_class_is_split_in_proportion(tmp_path: Path) -> None:
    data = photos.read(photos.make(tmp_path / "photos", {"dog": 40, "cat/old": 10, "cat/new/white": 10}))
    assert data.task.name == "classification"
    assert data.task.names == ("cat", "dog")
    assert sizes(data) == [48, 6, 6]
    assert [torch.bincount(data.splits[split][1]).tolist() for split in SPLITS] == [[16, 32], [2, 4], [2, 4]]
    assert data.class_counts == [16, 32]
    assert data.image_shape == (3, 8, 8)
    assert data.source == str(tmp_path / "photos")


def test_each_image_has_the_pixels_and_the_class_of_its_file(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {"cat": 12, "dog": 12})
    data = photos.read(folder)
    pixels = {path: torch.tensor(list(Image.open(folder / path).get_flattened_data())) for path in listed(data)}
    for split in SPLITS:
        paths = [path for path in sorted(pixels) if split_of(data)[path] == split]
        for path, image, target in zip(paths, *data.splits[split], strict=True):
            assert torch.equal(image.permute(1, 2, 0).reshape(-1, 3), pixels[path])
            assert path.startswith(data.task.names[target])


def test_the_users_own_splits_are_kept(tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 4 for split in ("Train", "validation", "test") for name in ("cat", "dog")}
    data = photos.read(photos.make(tmp_path / "photos", counts | {"Train/bird": 1}))
    assert sizes(data) == [9, 8, 8]
    assert {split for path, split in split_of(data).items() if path.startswith("validation")} == {"val"}


@pytest.mark.parametrize(("given", "expected"), [(["val"], [36, 8, 4]), (["test"], [36, 4, 8]), ([], [32, 4, 4])])
def test_a_split_that_is_missing_is_taken_from_train(given: list[str], expected: list[int], tmp_path: Path) -> None:
    counts = {f"{split}/{name}": 4 for split in given for name in ("cat", "dog")}
    data = photos.read(photos.make(tmp_path / "photos", counts | {"train/cat": 20, "train/dog": 20}))
    assert sizes(data) == expected


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    assert photos.read(photos.make(tmp_path / "photos", {"train": 9, "bus": 9})).task.names == ("bus", "train")


def test_classes_are_sorted_as_numbers_if_they_are_numbers(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {"10": 5, "9": 5, "100": 5})
    assert photos.read(folder).task.names == ("9", "10", "100")
    assert photos.read(folder, "data.classes=[100,9]").task.names == ("100", "9"), "in the order given"
    assert photos.read(photos.make(folder, {"x": 5})).task.names == ("10", "100", "9", "x")


def test_only_the_wanted_classes_are_read(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {"cat": 10, "dog": 10, "bird": 10})
    (folder / "bird" / "00.png").write_text("no image, which does not matter")
    data = photos.read(folder, "data.classes=[dog,cat]")
    assert sum(sizes(data)) == 20
    assert {path.partition("/")[0] for path in listed(data)} == {"cat", "dog"}


def test_other_files_are_counted_and_those_of_file_managers_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = photos.make(tmp_path / "photos", {"cat": 9, "dog": 8})
    (folder / "dog" / "00.png").rename(folder / "dog" / "00.PNG")
    for name in ("cat/Thumbs.db", "cat/.DS_Store", "dog/notes.TXT", "dog/b.txt", "dog/c.mp4", "cat/._00.png", "cat.md"):
        (folder / name).write_text("no image")
    (folder / ".ipynb_checkpoints").mkdir()
    photos.image(99).save(folder / "cover.png")
    with caplog.at_level(logging.INFO):
        data = photos.read(folder)
    assert sum(sizes(data)) == 17
    assert f"{folder}: files that are no images are not used: 2 hidden, 2 .txt, 1 .md, 1 .mp4" in caplog.messages
    assert f"{folder}: not used, since in no class: cover.png" in caplog.messages


def test_classes_that_differ_by_case_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos.read(photos.make(tmp_path / "photos", {"Cat": 5, "cat": 5}))
    assert f"{tmp_path / 'photos'}: the classes Cat and cat differ only in upper and lower case" in caplog.messages


# tables


def test_a_text_is_a_class(tmp_path: Path) -> None:
    rows = [("file", "animal"), *((f"{i}.png", ("dog", "cat")[i % 2]) for i in range(20))]
    data = photos.read(photos.table(tmp_path / "photos", rows), "data.table=labels.csv")
    assert data.task.names == ("cat", "dog")
    assert data.splits["train"][1].dtype == torch.int64
    assert {path: row["target"] for path, row in listed(data).items()} == dict(rows[1:])


def test_several_texts_are_several_classes(tmp_path: Path) -> None:
    cells = ["sea; sun", "", "sun", "sea;sea"] * 5
    folder = photos.table(tmp_path / "photos", [("file", "tags"), *((f"{i:02}.png", c) for i, c in enumerate(cells))])
    data = photos.read(folder, "data.table=labels.csv")
    assert data.task.name == "multilabel"
    assert data.task.names == ("sea", "sun")
    target = torch.cat([data.splits[split][1] for split in SPLITS])
    assert target.dtype == torch.float32
    assert Counter(map(tuple, target.tolist())) == {(1, 1): 5, (0, 0): 5, (0, 1): 5, (1, 0): 5}
    one = photos.read(folder, "data.table=labels.csv", "data.classes=[sun,sea]").splits["train"][1]
    assert torch.equal(one.flip(1), data.splits["train"][1])


def test_columns_of_0_and_1_are_classes_if_the_task_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("file", "sun", "sea"), *((f"{i:02}.png", int(i % 2 == 0), int(i % 3 == 0)) for i in range(24))]
    folder = photos.table(tmp_path / "photos", rows)
    data = photos.read(folder, "data.table=labels.csv", "data.task=multilabel")
    assert data.task.names == ("sun", "sea")
    assert torch.cat([data.splits[split][1] for split in SPLITS]).sum(0).tolist() == [12, 8]
    with caplog.at_level(logging.INFO):
        assert photos.read(folder, "data.table=labels.csv").task.name == "regression"
    assert any("data.task=multilabel makes them classes" in line for line in caplog.messages)


def test_numbers_are_values_with_units(tmp_path: Path) -> None:
    rows = [("file", "age [years]", "height"), *((f"{i:02}.png", i, f"{i * 0.5 - 3:.3e}") for i in range(40))]
    data = photos.read(photos.table(tmp_path / "photos", rows), "data.table=labels.csv")
    assert data.task.name == "regression"
    assert data.task.names == ("age", "height")
    assert data.task.units == ("years", "")
    assert sizes(data) == [32, 4, 4]
    assert data.class_counts is None
    train = data.splits["train"][1]
    assert torch.equal(train[:, 1], train[:, 0] * 0.5 - 3)
    low, center, high = np.quantile(train.numpy(), (0.25, 0.5, 0.75), axis=0, method="nearest")
    assert data.task.center == pytest.approx(center.tolist())
    assert data.task.scale == pytest.approx(((high - low) / 1.349).tolist())
    for split in ("val", "test"):  # a quarter of the range each, as bins are drawn from
        assert data.splits[split][1][:, 0].sort().values.div(10).floor().tolist() == [0, 1, 2, 3]


def test_whole_numbers_are_classes_if_the_task_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("file", "stars"), *((f"{i:02}.png", 2 + 9 * (i % 2)) for i in range(40))]
    folder = photos.table(tmp_path / "photos", rows)
    with caplog.at_level(logging.INFO):
        assert photos.read(folder, "data.table=labels.csv").task.name == "regression"
    assert any("stars holds 2 different whole numbers" in line for line in caplog.messages)
    data = photos.read(folder, "data.table=labels.csv", "data.task=classification")
    assert data.task.names == ("2", "11")


def test_columns_are_chosen(tmp_path: Path) -> None:
    rows = [("id", "age", "file", "name"), *((i, i + 1, f"{i:02}.png", "ab"[i % 2]) for i in range(20))]
    folder = tmp_path / "photos"
    photos.make(folder, {".": 20})
    photos.table(folder, [["file"], *[[f"{i:02}.png"] for i in range(20)]], name="unused.csv")
    (folder / "labels.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    options = ["data.table=labels.csv", "data.path_column=file"]
    assert photos.read(folder, *options, "data.target_columns=[name]").task.names == ("a", "b")
    assert photos.read(folder, *options, "data.target_columns=[age,id]").task.names == ("age", "id")


def test_a_column_has_the_splits(tmp_path: Path) -> None:
    words = ["train", "TEST", "Valid"]
    rows = [("file", "Split", "class"), *((f"{i:02}.png", words[i % 3], "ab"[i % 2]) for i in range(24))]
    data = photos.read(photos.table(tmp_path / "photos", rows), "data.table=labels.csv")
    assert [split_of(data)[f"{i:02}.png"] for i in range(24)] == ["train", "test", "val"] * 8


@pytest.mark.parametrize(
    "content",
    [
        "file\tclass\n{0}.png\ta\n{1}.png\tb\n{2}.png\ta\n{3}.png\tb\n{4}.png\ta\n{5}.png\tb\n",
        "\ufefffile\tclass\r\n{0}.png\ta\r\n{1}.png\tb\r\n\r\n{2}.png\ta\r\n{3}.png\tb\r\n{4}.png\ta\r\n{5}.png\tb",
        "file\tclass\n{folder}/{0}.png\ta\n./{1}.png\tb\n.\\{2}.png\t a \n{3}.png\t'b'\n{4}.png\ta\n{5}.png\t'b'\n",
    ],
    ids=["tabs", "from Excel", "other paths"],
)
def test_tables_of_other_programs(content: str, tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {".": 7})
    text = content.format(*(f"{i:02}" for i in range(7)), folder=folder).replace("'b'", '"b"')
    (folder / "labels.TSV").write_bytes(text.encode())
    data = photos.read(folder, "data.table=labels.TSV")
    assert data.task.names == ("a", "b")
    assert sum(sizes(data)) == 6


@pytest.mark.parametrize("target", ["class", "tags", "age", "folders", "age as classes"])
def test_the_task_is_known_without_the_images(target: str, tmp_path: Path) -> None:
    cells = {"class": ["a", "b"], "tags": ["a;b", "b"], "age": [1, 2], "age as classes": [1, 2], "folders": ["a", "b"]}
    folder = photos.make(tmp_path / "photos", {"cat": 9, "dog": 9})
    photos.table(folder, [("file", "target"), *((f"{i:02}.png", cells[target][i % 2]) for i in range(18))])
    overrides = [] if target == "folders" else ["data.table=labels.csv"]
    overrides += ["data.task=classification"] if target == "age as classes" else []
    node = {key: value for key, value in photos.node(folder, *overrides).items() if key != "_target_"}
    name = FolderDataModule.task_name(**node)
    assert name == photos.read(folder, *overrides).task.name
    assert name == {"tags": "multilabel", "age": "regression"}.get(target, "classification")


# splits


def test_a_split_is_a_function_of_names_and_seed(tmp_path: Path) -> None:
    one = split_of(photos.read(photos.make(tmp_path / "a", photos.CATS_AND_DOGS)))
    folder = photos.make(tmp_path / "b", {"dog": 20, "cat": 20})  # other pixels, in another folder
    assert split_of(photos.read(folder)) == one
    assert split_of(photos.read(folder, "data.split_seed=1")) != one
    # the smallest of `printf '0 cat/06.png' | b2sum -l 128` of each class
    assert sorted(path for path in one if one[path] == "test") == [
        "cat/06.png", "cat/16.png", "dog/00.png", "dog/18.png",
    ], "on every machine"  # fmt: skip


def test_another_share_of_val_and_a_new_image_keep_the_test_split(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos")
    before = split_of(photos.read(folder))
    other = split_of(photos.read(folder, "data.val_share=0.3"))
    assert {p for p in before if before[p] == "test"} == {p for p in other if other[p] == "test"}
    photos.image(1000).save(folder / "cat" / "new.png")
    after = split_of(photos.read(folder))
    assert sum(before[path] != after[path] for path in before) <= 2


def test_small_classes_are_measured_or_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = photos.read(photos.make(tmp_path / "photos", {"cat": 2, "dog": 2}))
    assert sizes(data) == [2, 1, 1]
    assert data.class_counts == [1, 1]
    assert sum("has no image of" in line for line in caplog.messages) == 2


def test_images_with_the_same_bytes_stay_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = photos.make(tmp_path / "photos", {"cat": 30, "dog": 30})
    pairs = [(f"cat/{i:02}.png", f"cat/copy{i:02}.png") for i in range(20)]
    for original, copy in pairs:
        (folder / copy).write_bytes((folder / original).read_bytes())
    for seed in range(5):
        split = split_of(photos.read(folder, f"data.split_seed={seed}"))
        assert all(split[original] == split[copy] for original, copy in pairs)
        assert len({split[original] for original, _ in pairs}) > 1
    assert warnings(caplog)[0].startswith(
        "20 copies of other images, with the same bytes, which stay together in one split: cat/00.png = cat/copy00.png,"
    )
    assert warnings(caplog)[0].endswith("cat/09.png = cat/copy09.png and 10 more")


def test_copies_that_tell_against_each_other_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = {f"{split}/{name}": 4 for split in SPLITS for name in ("cat", "dog")}
    folder = photos.make(tmp_path / "photos", counts)
    for copy in ("test/cat/03.png", "train/dog/02.png"):
        (folder / copy).write_bytes((folder / "train/cat/00.png").read_bytes())
    photos.read(folder)
    same = "test/cat/03.png = train/cat/00.png = train/dog/02.png"
    assert warnings(caplog) == [
        f"2 copies of other images, with the same bytes: {same}",
        f"1 image in several splits, so that what is measured on these is too good: {same}",
        f"1 image with different targets for the same bytes: {same}",
    ]


def test_files_of_equal_size_with_other_bytes_are_no_copies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bitmaps have equal sizes, and these differ in one byte in the middle, or at one end."""
    folder = photos.make(tmp_path / "photos", {"cat": 4, "dog": 4}, ".bmp")
    image = Image.new("L", (120, 120))
    for i, place in enumerate([(0, 0), (60, 60), (61, 60), (119, 119)]):
        image.putpixel(place, 1)
        image.save(folder / "cat" / f"0{i}.bmp")
    photos.read(folder)
    assert not [line for line in caplog.messages if "same bytes" in line]


def test_each_image_is_in_exactly_one_test_fold(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos", {"cat": 23, "dog": 10, "bird": 7})
    (folder / "dog" / "copy.png").write_bytes((folder / "cat" / "00.png").read_bytes())
    folds = [split_of(photos.read(folder, f"data.fold={k}", "data.folds=4")) for k in range(4)]
    tests = [[path for path in fold if fold[path] == "test"] for fold in folds]
    assert sorted(chain(*tests)) == sorted(folds[0])
    assert sorted(map(len, tests)) == [10, 10, 10, 11]
    for test, fold in zip(tests, folds, strict=True):
        assert Counter(fold.values())["val"] == 4
        assert 5 <= sum(path.startswith("cat") for path in test) <= 6
        assert fold["dog/copy.png"] == fold["cat/00.png"]


def test_sets_of_classes_are_split_in_proportion(tmp_path: Path) -> None:
    cells = ["a;b"] * 40 + ["b"] * 20 + ["c"] * 3
    folder = photos.table(tmp_path / "photos", [("file", "tags"), *((f"{i:02}.png", c) for i, c in enumerate(cells))])
    data = photos.read(folder, "data.table=labels.csv")
    counts = Counter((row["split"], row["target"]) for row in listed(data).values())
    assert [counts["test", "a;b"], counts["test", "b"]] == [4, 2]
    assert [counts["val", "a;b"], counts["val", "b"]] == [4, 2]


# images that cannot be read


def test_unreadable_images_are_left_out_and_listed_by_every_store(tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos")
    torn = folder / "cat" / "07.png"
    torn.write_bytes(torn.read_bytes()[:-60])
    (folder / "dog" / "11.png").write_text("no image")
    found = []
    for store in ("memory", "mapped", "decoded"):
        data = photos.read(folder, "data.skip_unreadable=true", f"data.store={store}")
        skipped = list(csv.DictReader(data.run_files[names.SKIPPED].splitlines()))
        assert [row["path"] for row in skipped] == ["cat/07.png", "dog/11.png"]
        assert skipped[1]["reason"] == "no image of a known format"
        index = torch.arange(len(data.splits["train"][0]))
        found.append((split_of(data), data.splits["train"][0][index], data.mean, data.std))
    assert len(found[0][0]) == 38
    assert list(Path(f"{folder}-cache").glob("*/*.json"))
    for split, pixels, mean, std in found[1:]:
        assert split == found[0][0]
        assert torch.equal(pixels, found[0][1])
        assert (mean, std) == found[0][2:]


def test_mean_and_deviation_are_those_of_the_training_split(tmp_path: Path) -> None:
    data = photos.read(photos.make(tmp_path / "photos"))
    pixels = data.splits["train"][0].double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "cat/00.png").unlink(), r"1 image gone \(cat/00\.png\)"),
        (lambda f: photos.image(99).save(f / "cat/new.png"), r"1 image added \(cat/new\.png\)"),
        (lambda f: (f / "cat/00.png").rename(f / "dog/99.png"), r"1 image gone \(cat/00\.png\); 1 image added"),
        (lambda f: photos.image(99, 9).save(f / "cat/00.png"), r"1 image with other bytes \(cat/00\.png\)"),
    ],
)
def test_a_run_notices_that_its_images_have_changed(change: object, words: str, tmp_path: Path) -> None:
    folder = photos.make(tmp_path / "photos")
    data = photos.read(folder)
    (tmp_path / names.SPLITS).write_text(data.run_files[names.SPLITS])
    photos.read(folder).check_unchanged(tmp_path)
    change(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=rf"not those that this run began with: {words}.*init_from="):
        photos.read(folder).check_unchanged(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / names.SPLITS)
    with pytest.raises(UserError, match=r"splits\.csv is not a regular file"):
        photos.read(photos.make(tmp_path / "photos")).check_unchanged(tmp_path)


def test_a_run_notices_that_a_target_has_changed(tmp_path: Path) -> None:
    rows = [("file", "age"), *((f"{i:02}.png", i) for i in range(20))]
    folder = photos.table(tmp_path / "photos", rows)
    (tmp_path / names.SPLITS).write_text(photos.read(folder, "data.table=labels.csv").run_files[names.SPLITS])
    photos.table(folder, [*rows[:-1], ("19.png", 20)])
    with pytest.raises(UserError, match=r"1 image with another target \(19\.png\)"):
        photos.read(folder, "data.table=labels.csv").check_unchanged(tmp_path)


def test_names_of_any_characters(tmp_path: Path) -> None:
    """Spaces, quotes, commas, new lines, other scripts, and bytes that are not UTF-8."""
    folder = photos.make(tmp_path / "photos", {'a cat, "old"': 5, "犬": 5})
    odd = ["new\nline.png", "tab\t.png", "a,b.png", "'\".png", "ü.png", b"\xff.png".decode(errors="surrogateescape")]
    for number, name in enumerate(odd):
        photos.image(100 + number).save(folder / "犬" / name)
    data = photos.read(folder)
    assert data.task.names == ('a cat, "old"', "犬")
    assert sum(sizes(data)) == 16
    (tmp_path / names.SPLITS).write_bytes(data.run_files[names.SPLITS].encode(errors="surrogateescape"))
    photos.read(folder).check_unchanged(tmp_path)
    assert set(split_of(data)) >= {f"犬/{name}" for name in odd if "\n" not in name}
