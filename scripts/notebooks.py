"""Execute the notebooks of docs/notebooks/ from top to bottom and keep their outputs: python scripts/notebooks.py.

A notebook NAME.ipynb is executed. NAME.zh.ipynb is the same notebook with its text in another language: it gets the
code and the outputs of NAME.ipynb. So change code in NAME.ipynb only, and text in both.
"""

import argparse
import base64
import io
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(path for path in FOLDER.glob("*.ipynb") if path.suffixes == [".ipynb"])
LIMIT = 600  # seconds for a cell


def executed(path: Path) -> NotebookNode:
    """Return a notebook with the outputs of a new execution; raise CellExecutionError if a cell raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=LIMIT,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of this machine
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = smaller(data["image/png"])
    return notebook


def smaller(png: str) -> str:
    """Return a PNG picture, in base64, with at most 64 colours; it then has a third of the size."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(64).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def translations(path: Path) -> list[Path]:
    """Return the same notebook in other languages."""
    return sorted(path.parent.glob(f"{path.stem}.*.ipynb"))


def with_code_of(notebook: NotebookNode, original: NotebookNode) -> NotebookNode:
    """Give a notebook the code cells of another, which has as many, in the same places between the text."""
    kinds = [[cell.cell_type for cell in one.cells] for one in (notebook, original)]
    if kinds[0] != kinds[1]:
        raise SystemExit("the cells of the two notebooks differ: add, move or remove text and code in both alike")
    pairs = zip(notebook.cells, original.cells, strict=True)
    notebook.cells = [old if old.cell_type == "markdown" else new for old, new in pairs]
    return notebook


def main() -> None:
    """Execute and write all notebooks."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for path in NOTEBOOKS:
        notebook = executed(path)
        nbformat.write(notebook, path)
        for other in translations(path):
            nbformat.write(with_code_of(nbformat.read(other, as_version=4), notebook), other)


if __name__ == "__main__":
    main()
