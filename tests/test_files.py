"""Files that are written whole or not at all."""

from pathlib import Path

import pytest

from lossfit.system import files


def test_a_write_that_fails_leaves_the_old_content_and_no_part(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    files.write(target, "old")

    def write_half() -> None:
        with files.replacing(target) as part:
            part.write_text("half of the new")
            raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        write_half()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"result.json": "old"}


def test_the_parts_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".result.json.part71", ".metrics.csv.part8", ".lock", "metrics.csv", "a.part7"):
        (tmp_path / name).touch()
    files.remove_parts(tmp_path, "metrics.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        ".result.json.part71",
        "a.part7",
        "metrics.csv",
    ]
    files.remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a.part7", "metrics.csv"]


def test_a_folder_that_cannot_be_synced_does_not_fail_the_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems refuse it."""
    sync = files._sync

    def refuse_folders(path: Path, flags: int) -> None:
        if path.is_dir():
            raise OSError(22, "Invalid argument")
        sync(path, flags)

    monkeypatch.setattr(files, "_sync", refuse_folders)
    files.write_yaml(tmp_path / "a.yaml", {"b": 1})
    assert (tmp_path / "a.yaml").read_text() == "b: 1\n"
