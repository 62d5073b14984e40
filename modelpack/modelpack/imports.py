"""What Python sources and pickles import, and which installed distributions provide it; nothing of it is run."""

from __future__ import annotations

import ast
import contextlib
import dis
import importlib.metadata
import importlib.util
import io
import json
import pickletools
import re
import sys
import types
import zipfile
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelpack import addresses

__all__ = ["distributions", "of_code", "of_directory", "of_file", "of_pickle", "of_source", "origin", "without"]

# A pickle is looked at this far, which takes a tenth of a second; large arrays are one step each.
_MAX_STEPS = 100_000
# The program itself, and what pickles of protocol 2, such as torch's, call two modules of the standard library.
_ALWAYS = frozenset({"__main__", "__builtin__", "copy_reg"})
# Functions that import the module they are given.
_IMPORTERS = frozenset({"import_module", "__import__"})


def of_directory(directory: Path) -> set[str]:
    """Return what the Python files below a directory import, without the modules that are there."""
    if not directory.is_dir():
        return set()
    own = {path.name.removesuffix(".py") for path in directory.iterdir()}
    found: set[str] = set()
    for path in directory.rglob("*.py"):
        found |= of_source(path.read_bytes())
    return without(found, own)


def of_source(source: bytes) -> set[str]:
    """Return what Python source imports, wherever in it, with the names it takes, which may be modules themselves.

    Nothing if it cannot be parsed.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    nodes = list(_run(tree))
    importers = _IMPORTERS.union(*map(_called_otherwise, nodes))
    return _foreign(name for node in nodes for name in _imported(node, importers))


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
    return _name(test) == "TYPE_CHECKING" or ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")


def _imported(node: ast.AST, importers: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield from (_taken(node.module, alias.name) for alias in node.names)
    elif isinstance(node, ast.Call) and _name(node.func) in importers:
        yield from _asked(node)


def _name(node: ast.expr) -> str | None:
    """Return the last word of what is called or assigned."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def _called_otherwise(node: ast.AST) -> Iterator[str]:
    """Yield the names that a module gives to functions which import."""
    if isinstance(node, ast.ImportFrom):
        yield from (alias.asname for alias in node.names if alias.asname and alias.name in _IMPORTERS)
    elif isinstance(node, ast.Assign) and _name(node.value) in _IMPORTERS:
        yield from (name for target in node.targets if (name := _name(target)))


def _asked(call: ast.Call) -> Iterator[str]:
    """Yield the module that a call of such a function asks for, if it stands there and is not the code's own."""
    given: dict[str | None, ast.expr] = dict(zip(("name", "package", "", "", "level"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords}
    values = {name: node.value for name, node in given.items() if isinstance(node, ast.Constant)}
    name, package = values.get("name"), values.get("package")
    if not isinstance(name, str) or values.get("level"):
        return
    if not name.startswith("."):
        yield name
    elif isinstance(package, str):
        with contextlib.suppress(ImportError):
            yield importlib.util.resolve_name(name, package).rstrip(".")


def of_code(code: types.CodeType) -> set[str]:
    """Return what the byte code of a function imports, but for what it takes from its own package."""
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    found = zip(steps, steps[1:], steps[2:], strict=False)
    return _foreign(
        _taken(step.argval, name)
        for level, names, step in found
        if step.opname == "IMPORT_NAME" and not level.argval
        for name in names.argval or ("*",)
    )


def _taken(module: str, name: str) -> str:
    """Return what ``from module import name`` takes, which may be a module itself."""
    return module if name == "*" else f"{module}.{name}"


def of_file(data: bytes) -> set[str]:
    """Return the modules that a file names which is a pickle, or an archive of pickles as torch writes it."""
    # A pickle may hold the bytes of an archive, even at its end, where an archive has its table of contents.
    if not (data.startswith(b"PK\x03\x04") and zipfile.is_zipfile(io.BytesIO(data))):
        return of_pickle(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    return set().union(*map(of_pickle, pickles))


def of_pickle(data: bytes) -> set[str]:
    """Return the modules that a pickle names: those of its classes and functions, and modules by name."""
    return _foreign(_named(data))


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


def _foreign(names: Iterable[str]) -> set[str]:
    """Return the names of modules that are neither the standard library's nor the program's own."""
    return without(filter(_is_name, names), _ALWAYS | sys.stdlib_module_names)


def without(names: Iterable[str], tops: Collection[str]) -> set[str]:
    """Return the names but for those that are in one of the top-level modules."""
    return {name for name in names if name.partition(".")[0] not in tops}


def _is_name(name: str) -> bool:
    return all(word.isidentifier() for word in name.split("."))


def distributions(modules: Collection[str]) -> dict[str, str]:
    """Return which installed distributions provide the modules, with the versions they have.

    A module nobody provides is left out. Where several distributions have parts of one package, those are meant that
    have the longest part of a name: ``google.cloud.storage`` is not all that has something in ``google``.
    """
    names = {name for name in modules if _is_name(name)}
    tops = {name.partition(".")[0] for name in names}
    if not tops:
        return {}
    listed = [_Listed(one) for one in importlib.metadata.distributions()]
    # Files are many, so they are read of those that do not say what they provide, and for what is said by nobody.
    providers = [one for one in listed if (one.declares(tops) if one.tops else one.lists(tops))]
    missing = {top for top in tops if not any(one.has(top) for one in providers)}
    providers += [one for one in listed if one not in providers and one.lists(missing)]
    places = {path for top in tops if (path := _place(top)) is not None and "site-packages" not in path.parts}
    chosen = {one for name in names for one in _deepest(name, providers)}
    found: dict[str, str] = {}
    for one in listed:
        if one in chosen or (places and _editable_of(one.distribution, places)):
            found.setdefault(one.distribution.metadata["Name"], one.distribution.version)
    return found


class _Listed:
    """An installed distribution and the files that it lists, read when they are asked for."""

    def __init__(self, distribution: importlib.metadata.Distribution) -> None:
        self.distribution = distribution
        self.tops = frozenset((distribution.read_text("top_level.txt") or "").split())

    @cached_property
    def _record(self) -> str:
        return "\n" + (self.distribution.read_text("RECORD") or "")

    def declares(self, tops: Collection[str]) -> bool:
        return not self.tops.isdisjoint(tops)

    def lists(self, modules: Iterable[str]) -> bool:
        return any(map(self._has, modules))

    def has(self, top: str) -> bool:
        return top in self.tops or self._has(top)

    def _has(self, module: str) -> bool:
        """Say whether it has files of a module: a directory, a source, or a compiled one."""
        start = "\n" + module.replace(".", "/")
        if start not in self._record:
            return False
        file = rf"{start}(?:\.py|\.[^/,\n]*(?:so|pyd)),"
        return f"{start}/" in self._record or re.search(file, self._record) is not None

    def depth(self, name: str) -> int:
        """Return how many words of a dotted name it has."""
        words = name.split(".")
        deepest = next((n for n in range(len(words), 0, -1) if self._has(".".join(words[:n]))), 0)
        return deepest or int(words[0] in self.tops)


def _deepest(name: str, providers: Iterable[_Listed]) -> list[_Listed]:
    """Return who has the longest part of a module's name."""
    top = name.partition(".")[0]
    having = [one for one in providers if one.has(top)]
    if len(having) < 2:
        return having
    depths = [one.depth(name) for one in having]
    return [one for one, depth in zip(having, depths, strict=True) if depth == max(depths)]


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
    return any(place.is_relative_to(root) for place in places)


def _direct(distribution: importlib.metadata.Distribution) -> dict[str, dict[str, object]]:
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _developed(distribution: importlib.metadata.Distribution) -> bool:
    """Say whether its metadata are those that setuptools leaves in the directory of a project, found on the path."""
    if distribution.read_text("PKG-INFO") is None or distribution.read_text("METADATA") is not None:
        return False
    # Systems and older tools install such metadata too, where installed distributions lie, or with a list of files.
    listed = any(distribution.read_text(name) for name in ("RECORD", "installed-files.txt"))
    return not listed and {"site-packages", "dist-packages"}.isdisjoint(Path(str(distribution.locate_file(""))).parts)


def origin(name: str) -> str | None:
    """Return where an installed distribution came from, if that was no index; no path or password is in it.

    ``editable`` and ``local`` are a directory or a file of this machine, or a host of its own network; else it is the
    address of an archive or of a repository with the commit, ``git+https://example.org/x@0123abc``.
    """
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    direct = _direct(distribution)
    if not direct and _developed(distribution):
        return "editable"
    # What conda made of a distribution it installed from a directory of its own, which it has removed.
    if not direct or (distribution.read_text("INSTALLER") or "").strip() == "conda":
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
