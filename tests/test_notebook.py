"""The notebooks run from top to bottom, their translations have the same code, and the site shows them."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts import notebooks
from tests.conftest import ROOT

PATHS = sorted(notebooks.FOLDER.glob("*.ipynb"))
LARGEST = 400_000  # bytes
OF_A_MACHINE = re.compile(r"0x[0-9a-f]{6,}|/tmp|/home|/root|\d s left")


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def kinds(outputs: list[dict[str, Any]]) -> list[str]:
    """What a cell shows: text on stdout or stderr, or a picture."""
    return [output.get("name") or sorted(output["data"])[0] for output in outputs]


def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path) -> None:
    """It raises if a cell raises; the numbers may differ between machines."""
    executed = [kinds(cell.outputs) for cell in notebooks.executed(path).cells if cell.cell_type == "code"]
    assert executed == [kinds(cell["outputs"]) for cell in cells(path)]
    assert {"stdout", "image/png"} == {kind for found in executed for kind in found}, "no warnings"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_outputs_are_those_of_an_execution_without_traces_of_the_machine(path: Path) -> None:
    assert [cell["execution_count"] for cell in cells(path)] == list(range(1, 1 + len(cells(path))))
    texts = ["".join(output.get("text", "")) for cell in cells(path) for output in cell["outputs"]]
    assert not [text for text in texts if OF_A_MACHINE.search(text)]
    assert path.stat().st_size < LARGEST


def test_there_is_a_notebook_in_two_languages() -> None:
    assert [len(notebooks.translations(path)) for path in notebooks.NOTEBOOKS] == [1]


@pytest.mark.parametrize(
    ("path", "other"),
    [(path, other) for path in notebooks.NOTEBOOKS for other in notebooks.translations(path)],
    ids=lambda path: path.stem,
)
def test_a_translation_has_the_same_code_and_outputs_in_the_same_places(path: Path, other: Path) -> None:
    assert cells(other) == cells(path)
    both = [json.loads(one.read_text(encoding="utf-8"))["cells"] for one in (path, other)]
    assert [cell["cell_type"] for cell in both[0]] == [cell["cell_type"] for cell in both[1]]
    texts = [["".join(cell["source"]) for cell in cells(one, "markdown")] for one in (path, other)]
    assert not set(texts[0]) & set(texts[1]), "text that is not translated"
    structure = [[re.findall(r"^#+ (?=\d+)\d+|^\| |`[^`]+`", text, re.MULTILINE) for text in one] for one in texts]
    assert [sorted(one) for one in structure[0]] == [sorted(one) for one in structure[1]], "code in the text differs"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_has_its_text_code_and_outputs(path: Path) -> None:
    page, pictures = hooks().page_of_notebook(json.loads(path.read_text(encoding="utf-8")), path.stem)
    assert page.count("```python\n") == len(cells(path))
    assert all("".join(cell["source"]) in page for cell in cells(path, "markdown"))
    shown = [kind for cell in cells(path) for kind in kinds(cell["outputs"])]
    assert page.count("```{ .text .output }\n") == shown.count("stdout")
    assert set(re.findall(r"!\[[^]]+\]\(([^)]+)\)", page)) == set(pictures)
    assert len(pictures) == shown.count("image/png")
    assert all(content.startswith(b"\x89PNG") for content in pictures.values())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", "".join("".join(cell["source"]) for cell in cells(path, "markdown")))
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
