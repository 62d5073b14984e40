"""What Python sources and pickles import, and which installed distributions provide it; nothing of it is run."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import io
import json
import pickletools
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelpack import addresses

__all__ = ["distributions", "of_directory", "of_file", "of_pickle", "of_source", "origin"]

# A pickle is looked at this far, which takes a tenth of a second; large arrays are one step each.
_MAX_STEPS = 100_000
# The program itself, and what pickles of protocol 2, such as torch's, call two modules of the standard library.
_ALWAYS = frozenset({"__main__", "__builtin__", "copy_reg"})


def of_directory(directory: Path) -> set[str]:
    """Return the top-level modules that the Python files below a directory import, without those that are there."""
    if not directory.is_dir():
        return set()
    own = {path.name.removesuffix(".py") for path in directory.iterdir()}
    found: set[str] = set()
    for path in directory.rglob("*.py"):
        found |= of_source(path.read_bytes())
    return found - own


def of_source(source: bytes) -> set[str]:
    """Return the top-level modules that Python source imports, wherever in it; none if it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    return foreign(name for node in _run(tree) for name in _imported(node))


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module but those that only type checkers read, or that run only where it is the program."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _never(node.test):
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _never(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING" or ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        first = node.args[0]
        if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
            yield str(first.value)


def of_file(data: bytes) -> set[str]:
    """Return the top-level modules that a file names which is a pickle, or an archive of pickles as torch writes it."""
    # A pickle may hold the bytes of an archive, even at its end, where an archive has its table of contents.
    if not (data.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(data))):
        return of_pickle(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    return set().union(*map(of_pickle, pickles))


def of_pickle(data: bytes) -> set[str]:
    """Return the top-level modules that a pickle names: those of its classes and functions, and modules by name."""
    return foreign(_named(data))


def _named(data: bytes) -> Iterator[str]:
    """Yield names of modules: the first word of a global, and what cloudpickle's `subimport` is given."""
    texts: list[str] = []
    memo: list[str | None] = []
    last: str | None = None
    called = ""
    for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if step > _MAX_STEPS:
            return
        if name == "MEMOIZE":
            memo.append(last)
            continue
        last = None
        if "UNICODE" in name:
            last = str(argument)
        elif "GET" in name:
            index = int(str(argument))
            last = memo[index] if index < len(memo) else None
        elif name == "GLOBAL":
            yield str(argument).split(" ")[0]
        elif name == "STACK_GLOBAL" and len(texts) >= 2:
            called = texts[-1]
            yield texts[-2]
        elif name == "REDUCE" and called == "subimport" and texts:
            yield texts[-1]
        if last is not None:
            texts = [*texts[-1:], last]


def foreign(names: Iterable[str]) -> set[str]:
    """Return the top-level names of modules that are neither the standard library's nor the program's own."""
    tops = {name.partition(".")[0] for name in names} - _ALWAYS
    return {name for name in tops if name.isidentifier() and name not in sys.stdlib_module_names}


def distributions(modules: Collection[str]) -> dict[str, str]:
    """Return which installed distributions provide the modules, with the versions they have.

    A module nobody provides is left out. Several distributions may provide parts of one (namespace packages).
    """
    wanted = {name for name in modules if name.isidentifier()}
    if not wanted:
        return {}
    choice = "|".join(sorted(wanted))
    listed = re.compile(rf"^(?:{choice})(?:/|\.py,|\.[^/,]*(?:so|pyd),)", re.MULTILINE)
    places = {path for name in wanted if (path := _place(name)) is not None}
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        tops = (distribution.read_text("top_level.txt") or "").split()
        if (
            wanted.intersection(tops)
            or listed.search(distribution.read_text("RECORD") or "")
            or _editable_of(distribution, places)
        ):
            found.setdefault(distribution.metadata["Name"], distribution.version)
    return found


def _place(module: str) -> Path | None:
    """Return where a top-level module is, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def _editable_of(distribution: importlib.metadata.Distribution, places: Collection[Path]) -> bool:
    """Say whether the distribution is installed in editable mode from a directory that holds one of the modules."""
    url = _direct(distribution)
    if not url.get("dir_info", {}).get("editable"):
        return False
    root = Path(unquote(urlsplit(str(url.get("url", ""))).path))
    return any(place.is_relative_to(root) and "site-packages" not in place.parts for place in places)


def _direct(distribution: importlib.metadata.Distribution) -> dict[str, dict[str, object]]:
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def origin(name: str) -> str | None:
    """Return where an installed distribution came from, if that was no index; no path or password is in it.

    ``editable`` and ``local`` are a directory or a file of this machine, or a host of its own network; else it is the
    address of an archive or of a repository with the commit, ``git+https://example.org/x@0123abc``.
    """
    try:
        direct = _direct(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return None
    if not direct:
        return None
    if direct.get("dir_info", {}).get("editable"):
        return "editable"
    parts = urlsplit(str(direct.get("url", "")))
    if parts.scheme not in ("https", "http") or not addresses.public(parts.hostname or ""):
        return "local"
    port = f":{parts.port}" if parts.port else ""
    address = f"{parts.scheme}://{parts.hostname}{port}{parts.path}"
    version_control = direct.get("vcs_info", {})
    if version_control:
        address = f"{version_control.get('vcs', 'git')}+{address}@{version_control.get('commit_id', '')}"
    return address if len(address) <= 256 else "local"
