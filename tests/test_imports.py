"""Who may import whom, read from the source: what import-linter cannot say (an allow-list of libraries)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "modelpack" / "modelpack"
FLAVORS = ROOT / "flavors" / "modelpack_flavors"
SERVER = ROOT / "server" / "modelpack_server"

LIBRARIES = {
    CORE: {"modelpack", "numpy", "packaging", "pydantic", "pydantic_core"},
    CORE / "cli": {"click"},
    FLAVORS: {"modelpack", "modelpack_flavors", "numpy", "packaging", "pydantic"},
    SERVER: {
        "anyio",
        "click",
        "modelpack",
        "modelpack_server",
        "numpy",
        "orjson",
        "pyarrow",
        "pydantic",
        "simdjson",
        "starlette",
        "tqdm",
        "uvicorn",
    },
}


def modules() -> list[Path]:
    return sorted(path for room in (CORE, FLAVORS, SERVER) for path in room.rglob("*.py"))


def top_level(tree: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, `if` and `try` included, `if TYPE_CHECKING` not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from top_level(node)


def imported(path: Path) -> Iterator[str]:
    """Yield the full names of what the module imports when it is imported."""
    for node in top_level(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_what_its_room_may(path: Path):
    allowed = set(sys.stdlib_module_names).union(*(names for room, names in LIBRARIES.items() if room in path.parents))
    # A data source is a class of Spark's, with others in it: nothing imports the modules where there is no Spark.
    of_tables = [SERVER / "spark" / f"{name}.py" for name in ("kinds", "sinks", "sources", "tables")]
    allowed |= {"pyspark"} if path in of_tables else set()

    assert {name.partition(".")[0] for name in imported(path)} - allowed == set()


@pytest.mark.parametrize("path", sorted(FLAVORS.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_a_flavor_imports_no_other_flavor(path: Path):
    others = {other.stem for other in FLAVORS.glob("[a-z]*.py")} - {path.stem}
    names = {name.split(".")[1] for name in imported(path) if name.startswith("modelpack_flavors.")}

    assert names & others == set()


def test_no_module_is_named_after_one_of_the_standard_library():
    """Flavors excepted: they are named after their framework, and that is their manifest name."""
    names = {path.stem for path in modules() if FLAVORS not in path.parents} - {"__init__", "__main__"}

    # `inspect` and `trust` are commands: the file has the command's name.
    commands = {path.stem for path in (CORE / "cli").glob("*.py")}
    assert (names - commands) & set(sys.stdlib_module_names) == set()
