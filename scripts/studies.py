"""Write the pages of docs/studies from the results of studies: tables, pictures, and how they were made.

    python scripts/studies.py                                    make all pages again, without training
    python scripts/studies.py logs/train/multiruns/SWEEP ...     take over the results of these studies first
    python scripts/studies.py --check                            fail if a page is not what would be written

A study is a sweep, `python train.py -m study=NAME`, whose folder has its results in study.json. They are copied to
docs/studies/NAME.json, in the place of older ones. NAME.md, its pictures and the table of contents index.md are made of
these files. What the table says in words is written by hand in NAME.txt, which becomes part of the page.

Exit status: 0, 1 if --check finds a difference, or 2 for a mistake.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lossfit import studies
from lossfit.errors import UserError, exit_on_error
from lossfit.option_files import CONF, meaning
from lossfit.runs import names
from lossfit.studies.pictures import draw, pictures_of
from lossfit.system import files

DOCS = CONF.parent / "docs" / "studies"
INDEX = "index.md"


def main() -> int:
    """Copy results, and write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="SWEEP", help="the folder of a study")
    parser.add_argument("--docs", type=Path, default=DOCS, metavar="FOLDER", help="of the pages (default docs/studies)")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page would change")
    options = parser.parse_args()
    if options.check and options.folders:
        parser.error("--check takes no SWEEP")
    if not options.check:
        try:
            options.docs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--docs {options.docs} cannot be made: {error.strerror}") from error
    for folder in options.folders:
        content = read(folder / names.STUDY_RESULT)
        files.write_json(options.docs / f"{content['study']}.json", content)
    contents = [read(file) for file in sorted(options.docs.glob("*.json"))]
    pages = {f"{one['study']}.md": page(one, options.docs) for one in contents} | {INDEX: index(contents)}
    if options.check:
        old = [name for name, text in pages.items() if _text(options.docs / name) != text]
        for name in old:
            print(f"{options.docs / name} is not what `python scripts/studies.py` writes")
        return int(bool(old))
    for name, text in pages.items():
        files.write(options.docs / name, text)
    for content in contents:
        print(*draw(content, options.docs / f"{content['study']}.png"))
    return 0


def page(content: dict[str, Any], docs: Path) -> str:
    """Return the page of a study."""
    name = content["study"]
    return studies.page(content, pictures_of(content, f"{name}.png"), _text(docs / f"{name}.txt") or "")


def index(contents: list[dict[str, Any]]) -> str:
    """Return the table of contents."""
    lines = [f"- [{studies.title(one['study'])}]({one['study']}.md): {what(one['study'])}" for one in contents]
    head = ["<!-- Written by scripts/studies.py. -->", "", "# Studies", ""]
    intro = "Each page has a table, a picture, and the command that makes them again."
    return "\n".join([*head, intro, "", *lines]) + "\n"


def what(name: str) -> str:
    """Return what a study is about, by its file in conf/study."""
    file = CONF / "study" / f"{name}.yaml"
    return meaning(file) if file.exists() else ""


def read(file: Path) -> dict[str, Any]:
    """Return the results of a study; raise UserError if there are none."""
    try:
        content = json.loads(files.read_text(file))
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: a study writes it when all of its runs are done; resume it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if wrong := studies.problem(content):
        raise UserError(f"{file} has no results of a study: {wrong}")
    return dict(content)


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None


if __name__ == "__main__":
    with exit_on_error():
        sys.exit(main())
