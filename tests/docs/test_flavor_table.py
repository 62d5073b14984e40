"""The table of flavors has a row for each flavor, and a test behind each cell."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from modelpack import flavor

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "flavors" / "index.md"
CASES = ROOT / "tests" / "flavors" / "cases"
COLUMNS = ["flavor", "save", "load", "HTTP", "batch", "twin", "class", "refused, for example"]
BACKED = re.compile(r'\[[^\]]+\]\((?P<file>[^)\s]+) "(?P<test>\w+)(?:\[(?P<case>[^\]]+)\])?"\)')


def table() -> list[list[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def rows() -> dict[str, list[str]]:
    """Return the cells of each flavor, by its name."""
    return {re.sub(r"\[(\w+)\].*", r"\1", cells[0]): cells[1:] for cells in table()[2:]}


@functools.cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@functools.cache
def cases_of(name: str) -> frozenset[str]:
    """Return the ids that the contract's tests have for a flavor."""
    tree = ast.parse((CASES / f"{name}.py").read_text(encoding="utf-8"))
    values = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "CASES"]
    keys = [key for value in values if isinstance(value, ast.Dict) for key in value.keys]
    return frozenset(f"{name}-{key.value}" for key in keys if isinstance(key, ast.Constant))


def missing(cell: str, name: str) -> list[str]:
    """Return what a cell names and is not there; a cell that names nothing is missing itself."""
    found = list(BACKED.finditer(cell))
    wrong = [] if found and BACKED.sub("", cell).strip(", ") == "" else [cell]
    for match in found:
        path = (PAGE.parent / match["file"]).resolve()
        known = path.is_file() and match["test"].startswith("test_") and match["test"] in functions_in(path)
        if not known or (match["case"] is not None and match["case"] not in cases_of(name)):
            wrong.append(match[0])
    return wrong


def test_each_flavor_has_a_row():
    assert sorted(rows()) == sorted(flavor.builtin())
    assert table()[0] == COLUMNS


@pytest.mark.parametrize("name", sorted(flavor.builtin()))
def test_each_cell_has_its_test(name: str):
    cells = rows()[name]

    assert len(cells) == len(COLUMNS) - 1
    assert [fault for cell in cells for fault in missing(cell, name)] == []


@pytest.mark.parametrize(
    "cell",
    [
        "yes",
        "",
        '[yes](../../tests/flavors/test_contract.py "test_that_nobody_wrote")',
        '[yes](../../tests/flavors/test_nothing.py "test_the_package_is_whole")',
        '[yes](../../tests/flavors/test_contract.py "test_the_package_is_whole[sklearn-nothing]")',
        '[yes](../../tests/flavors/test_contract.py "test_the_package_is_whole[python-function]")',
        '[yes](../../tests/flavors/test_contract.py "test_the_package_is_whole[sklearn-linear]") and more',
    ],
)
def test_a_cell_without_a_test_is_noticed(cell: str):
    assert missing(cell, "sklearn") != []
