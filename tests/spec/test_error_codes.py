"""spec/errors.md against the source: every code that can be raised is listed, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelpack import errors
from modelpack.coerce import CODES

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for root in ("modelpack/modelpack", "flavors/modelpack_flavors", "server/modelpack_server")
    for path in (ROOT / root).rglob("*.py")
)
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
HYPHENED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
# Calls that take a code by position.
RAISERS = {"Fault", "Misfit", "add", "fail", "report", "_refuse", "_error"}


def listed() -> dict[str, tuple[str, str, str]]:
    """Return code -> (class, meaning, what to do) from the tables of errors.md."""
    found = {}
    for line in (ROOT / "spec" / "errors.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0].startswith("`"):
            assert cells[0].strip("`") not in found, f"{cells[0]} is listed twice"
            found[cells[0].strip("`")] = (cells[1].strip("`"), cells[2], cells[3])
    return found


def constants(node: ast.AST | None) -> Iterator[str]:
    """Yield the texts an expression can be: itself, or the branches of a choice."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)


def raised(tree: ast.AST) -> Iterator[str]:
    """Yield the codes that a module can raise."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=args, keywords=keywords):
                name = func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")
                for keyword in keywords:
                    if keyword.arg == "code":
                        yield from (text for text in constants(keyword.value) if CODE.fullmatch(text))
                if name in RAISERS and len(args) > 1:
                    yield from (text for arg in args for text in constants(arg) if HYPHENED.fullmatch(text))
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "code":
                        yield from (text for text in constants(value) if HYPHENED.fullmatch(text))
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                yield from constants(value)
            case ast.Tuple(elts=[ast.Constant(value=str(code)), second]) if HYPHENED.fullmatch(code):
                if any(" " in text for text in texts(second)):
                    yield code


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def in_source() -> dict[str, set[str]]:
    """Return code -> the files that raise it."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for code in raised(ast.parse(path.read_text("utf-8"))):
            found.setdefault(code, set()).add(path.relative_to(ROOT).as_posix())
    return found


def with_classes() -> set[tuple[str, str]]:
    """Return the pairs of error class and code that stand in one call in the source."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors.__all__:
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        found |= {(node.func.id, code) for code in constants(keyword.value)}
    return found


def test_a_listed_code_has_the_classes_that_it_is_raised_with() -> None:
    rows = listed()
    wrong = {(name, code) for name, code in with_classes() if name not in re.split("`, `", rows[code][0])}
    assert wrong - {("Fault", code) for _, code in wrong} == set()


def test_every_code_in_the_source_is_listed() -> None:
    assert {code: files for code, files in in_source().items() if code not in listed()} == {}


def test_every_listed_code_is_in_the_source() -> None:
    every = {text for path in SOURCES for text in texts(ast.parse(path.read_text("utf-8")))}
    assert listed().keys() - every == set()


def test_the_codes_of_coercion_are_listed_with_the_meaning_they_have_in_the_code() -> None:
    rows = listed()
    assert {code: rows[code][1].rstrip(".") for code in CODES if code not in SHARED} == {
        code: meaning[0].upper() + meaning[1:] for code, meaning in CODES.items() if code not in SHARED
    }


# Codes of coercion that mean the same of a manifest, in words that fit both.
SHARED = {"field-missing"}


@pytest.mark.parametrize("code", sorted(listed()))
def test_a_listed_code_has_a_class_a_meaning_and_something_to_do(code: str) -> None:
    names, meaning, todo = listed()[code]
    assert CODE.fullmatch(code)
    for name in re.split(r"`, `", names):
        assert re.fullmatch(r"HTTP \d{3}", name) or issubclass(getattr(errors, name), errors.ModelpackError)
    assert meaning.endswith(".")
    assert todo.endswith(".")
