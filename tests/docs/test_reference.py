"""The docs name all there is: each command, flavor and error code has its place, and links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from modelpack import flavor

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
SOURCES = [ROOT / "modelpack", ROOT / "flavors", ROOT / "server"]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted((ROOT / "spec").glob("*.md")),
]
HEADING = re.compile(r"^#{1,6} +(?P<text>.+)$", re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(path: Path) -> set[str]:
    """Return the headings of a page, without back-quotes."""
    text = without_code(path.read_text(encoding="utf-8"))
    return {match["text"].replace("`", "").strip() for match in HEADING.finditer(text)}


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets on the web."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def renderer() -> ModuleType:
    """The tool that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("render_docs", ROOT / "scripts" / "render_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error_codes() -> set[str]:
    """Return every error code that the product's source writes: ``code="..."`` and ``Fault("...", ...)``."""
    found = set()
    for path in (path for root in SOURCES for path in root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if isinstance(node.func, ast.Name) and node.func.id == "Fault":
                values += node.args[:1]
            texts = (value.value for value in values if isinstance(value, ast.Constant))
            found |= {text for text in texts if isinstance(text, str) and CODE.fullmatch(text)}
    return found


def test_the_command_reference_is_what_the_commands_say():
    module = renderer()

    assert (DOCS / "cli.md").read_text(encoding="utf-8") == module.cli_page(), "run scripts/docs"


def test_the_architecture_page_names_every_module():
    module = renderer()

    assert (DOCS / "architecture.md").read_text(encoding="utf-8") == module.architecture_page(), "run scripts/docs"


def test_each_command_has_a_heading():
    module = renderer()
    names = {" ".join(("modelpack", *words)) for words in module.commands()}

    assert {"modelpack inspect", "modelpack verify", "modelpack test", "modelpack serve", "modelpack predict"} <= names
    assert names - headings(DOCS / "cli.md") == set()


def test_each_commands_help_shows_an_example():
    module = renderer()
    leaves = [words for words in module.commands() if not any(w[: len(words)] == words != w for w in module.commands())]
    without = [words for words in leaves if "modelpack " not in module.help_of(words).partition("\n")[2]]

    assert without == []


@pytest.mark.parametrize("name", sorted(flavor.available()))
def test_each_flavor_has_a_page(name: str):
    page = DOCS / "flavors" / f"{name}.md"

    assert page.is_file()
    assert any(name in heading for heading in headings(page))


def test_each_error_code_is_listed_in_the_specification():
    listed = set(re.findall(r"`([a-z0-9-]+)`", (ROOT / "spec" / "errors.md").read_text(encoding="utf-8")))

    assert error_codes() - listed == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path):
    dead = []
    for match in LINK.finditer(without_code(path.read_text(encoding="utf-8"))):
        target, _, fragment = match["target"].partition("#")
        if "://" in target:
            continue
        page = (path.parent / target).resolve() if target else path
        if not page.exists() or (fragment and fragment not in {anchor(text) for text in headings(page)}):
            dead.append(match["target"])

    assert dead == []


def test_what_the_source_refers_to_is_there():
    """Comments, docstrings and messages point into spec/ and docs/; the page and the heading must exist."""
    dead = set()
    for path in (path for root in SOURCES for path in root.rglob("*.py")):
        for match in re.finditer(r"\b((?:spec|docs)/[\w/.-]+\.md)(?:#([\w-]+))?", path.read_text(encoding="utf-8")):
            page = ROOT / match[1]
            if not page.is_file() or (match[2] and match[2] not in {anchor(text) for text in headings(page)}):
                dead.add(f"{path.relative_to(ROOT)}: {match[0]}")

    assert sorted(dead) == []


def test_the_index_leads_to_every_page():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    linked = {match["target"].partition("#")[0] for match in LINK.finditer(index)}
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}

    assert pages - linked == set()
