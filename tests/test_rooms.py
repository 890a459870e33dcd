"""The map of the rooms in CONTRIBUTING.md, compared with the imports that are written in src/."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lossfit.runs import names
from tests.conftest import ROOT

SRC = ROOT / "src"
MODULES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}
LIMIT = 250  # lines of a file
HEAVY = {"torch", "lightning", "torchvision", "torchmetrics"}
LATE = {"captum", "jinja2", "litdata", "optuna", "pandas", "sklearn", "timm", "lossfit.report"}  # where they are needed
HYDRA_ROOMS = ("cli", "hydra_plugins")
DOORS = ("lossfit", "lossfit.__main__")  # what a user imports or starts; above all rooms, as hydra_plugins is
LIGHTNING_INTERNALS = "lossfit.training.lightning_internals"
FILE_NAMES = "lossfit.runs.names"


def rooms() -> dict[str, str]:
    """The map: each room's line, the lowest room first."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```rooms\n(.+?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(" ")]
    return {name: line for name, _, line in lines}


ROOMS = rooms()
NO_TORCH = sorted(name for name, line in ROOMS.items() if line.endswith("(no torch)"))


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """The room of a module; the package and the doors to it are above all rooms."""
    return "" if module in DOORS or module.startswith("hydra_plugins") else module.split(".")[1]


def imported(module: str) -> Iterator[tuple[str, int]]:
    """What a module imports, at any depth, by full name, with the line: a.b.c for `from a.b import c`."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}:{node.lineno}: a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def resolved(name: str) -> str | None:
    """The module of src/ that an imported name is, or is in."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def arrows(module: str) -> set[str]:
    """The modules of src/ that a module imports, inside functions too."""
    return {found for name, _ in imported(module) if (found := resolved(name))} - {module}


def test_every_module_is_in_a_room_of_the_map() -> None:
    found = {room_of(module) for module in MODULES if module.startswith("lossfit")} - {""}
    assert found == set(ROOMS)


def test_a_room_imports_only_rooms_below_it() -> None:
    height = {name: number for number, name in enumerate(ROOMS)}
    height[""] = len(ROOMS)
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in sorted(arrows(module))
        if other != "lossfit" and height[room_of(other)] > height[room_of(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_doors_import_the_package_itself() -> None:
    """`import lossfit` in a room would be an arrow upwards, hidden by its short name."""
    names = {name for module in MODULES if room_of(module) for name, _ in imported(module)}
    assert "lossfit" not in names
    assert {name for name in names if resolved(name) == "lossfit"} == set(), "what lossfit/__init__.py defines"


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for other in sorted(arrows(module)):
            visit(other)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def test_rooms_marked_so_import_no_torch_and_a_run_imports_no_more_than_it_needs() -> None:
    assert {"errors", "config", "compare", "sweeps", "cli"} <= set(NO_TORCH)
    modules = [module for module in MODULES if room_of(module) in NO_TORCH]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = sorted({HEAVY} & sys.modules.keys())\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
        "from lossfit.system import imports\n"
        "with imports.quick():\n"
        "    import lossfit.training.engine, lossfit.callbacks, lossfit.loggers\n"  # what a default run imports
        f"late = sorted({LATE} & sys.modules.keys())\n"
        "assert not late, f'the start of a run imports {late}'\n"
    )
    command = [sys.executable, "-c", code]
    of_this_copy = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(command, cwd=ROOT, env=of_this_copy, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_hydra_is_imported_at_the_command_line_and_by_its_plugins_only() -> None:
    users = {
        module.split(".")[1] if module.startswith("lossfit.") else module.split(".")[0]
        for module in MODULES
        for name, _ in imported(module)
        if name.split(".")[0] == "hydra"
    }
    assert users == set(HYDRA_ROOMS)


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def owner(node: ast.expr) -> str:
    """The last name of the object whose attribute is taken: `loop` of `self.trainer.fit_loop`, `trainer` of trainer."""
    while isinstance(node, (ast.Subscript, ast.Call)):
        node = node.value if isinstance(node, ast.Subscript) else node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def test_only_one_file_touches_what_is_private_in_lightning() -> None:
    found = {}
    for module in MODULES:
        lines = [
            f"line {line}: {name}"
            for name, line in imported(module)
            if name.split(".")[0] == "lightning" and any(map(private, name.split(".")))
        ]
        lines += [
            f"line {node.lineno}: {owner(node.value)}.{node.attr}"
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Attribute)
            and private(node.attr)
            and re.search(
                r"trainer|loop|strategy|connector|launcher|progress|precision|lightning",
                owner(node.value),
                re.IGNORECASE,
            )
        ]
        if lines:
            found[module] = lines
    assert found.pop(LIGHTNING_INTERNALS, None), "this test sees none of them"
    assert not found


def test_the_file_names_of_a_run_folder_stand_in_one_file() -> None:
    written = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}
    words = written | {Path(value).name for value in written}
    assert {"config.yaml", "result.json", "last.ckpt"} <= words
    wrong = [
        f"{module}:{node.lineno}: {node.value!r}"
        for module in MODULES
        if module != FILE_NAMES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip("/") in words
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", MODULES)
def test_a_file_is_small_and_has_a_name_that_says_what_is_in_it(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LIMIT, f"{MODULES[module].relative_to(ROOT)} has {lines} lines: split it by its reasons"
    assert not {"utils", "util", "helpers", "misc", "common"} & set(module.split("."))
