"""A package's own Python modules, importable without touching ``sys.path`` (spec/08-flavors.md#code).

The modules below ``code/`` are imported under a name that is unique to the package's digest,
``_modelpack_code_<digest>.churn.features``, from the bytes that were verified. Inside them ``import churn.features``
finds the package's own module first, and so does ``importlib.import_module("churn.features")``; everywhere else that
name means whatever it meant before. So two packages with the same module names live in one process, and neither can
shadow an installed module for anybody else. Like all modules they stay until the process ends; models do not.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.resources.readers
import importlib.util
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpack.errors import FlavorError

__all__ = ["Namespace"]

PREFIX = "_modelpack_code_"
# Two threads may load one package at once.
_INSTALLING = threading.Lock()


class Namespace:
    """The modules in one package's ``code/`` directory.

    ``sources`` maps paths relative to it (``churn/features.py``) to verified bytes. Modules that come with other
    files (data they read beside ``__file__``) get a ``__file__`` in ``directory()``, a private verified copy; without
    such files nothing is written to disk.
    """

    def __init__(self, digest: str, sources: Mapping[str, bytes], directory: Callable[[], Path] | None = None) -> None:
        self.root = PREFIX + digest.removeprefix("sha256:")[:32]
        self._sources = dict(sources)
        self._directory = directory if any(not path.endswith(".py") for path in sources) else None
        self.modules = frozenset(path.split("/")[0].removesuffix(".py") for path in sources if path.endswith(".py"))

    def qualify(self, name: str) -> str:
        """Return the name under which the package's module ``name`` lives in ``sys.modules``."""
        return f"{self.root}.{name}"

    def owns(self, name: str) -> bool:
        """Say whether ``name`` is one of the package's own modules (or inside one)."""
        return name.partition(".")[0] in self.modules

    def import_module(self, name: str) -> types.ModuleType:
        """Import the package's module ``name`` and return it.

        Raises:
            FlavorError: ``code-missing``: the package has no such module. Whatever the module raises is passed on.
        """
        self.install()
        if self.find(name) is None:
            raise FlavorError(f"the package's code has no module {name!r}", code="code-missing")
        return importlib.import_module(self.qualify(name))

    def resolve(self, entrypoint: str) -> Any:
        """Return the object that ``module:name`` means in the package's code."""
        module, _, attribute = entrypoint.partition(":")
        value: Any = self.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part, None)
            if value is None:
                raise FlavorError(f"the package's code has no {entrypoint!r}", code="code-missing", path="entrypoint")
        return value

    def install(self) -> None:
        """Make the modules importable under the namespace; doing it twice changes nothing."""
        with _INSTALLING:
            # Flavors of one package may list different files; each imports only its own.
            while (there := sys.modules.get(self.root)) and vars(there)["files"] != self._sources.keys():
                self.root += "_"
            if there is None:
                package = types.ModuleType(self.root, "The code of one package.")
                package.__dict__["files"] = frozenset(self._sources)
                package.__path__ = []
                package.__spec__ = importlib.machinery.ModuleSpec(self.root, None, is_package=True)
                sys.modules[self.root] = package
                sys.meta_path.append(_Finder(self))

    def find(self, name: str) -> tuple[str, bytes, bool] | None:
        """Return (path, source, whether it is a package) of a module by its own name."""
        path = name.replace(".", "/")
        if f"{path}/__init__.py" in self._sources:
            return f"{path}/__init__.py", self._sources[f"{path}/__init__.py"], True
        if f"{path}.py" in self._sources:
            return f"{path}.py", self._sources[f"{path}.py"], False
        if any(other.startswith(f"{path}/") and other.endswith(".py") for other in self._sources):
            return f"{path}/", b"", True  # a namespace package: a directory without __init__.py
        return None

    def location(self, path: str) -> tuple[str, bool]:
        """Return where a file of the package's code is, for people or (True) for ``__file__``."""
        if self._directory is None:
            return f"<package>/code/{path}", False
        return str(self._directory() / path), True

    def builtins(self) -> dict[str, Any]:
        """Return builtins whose ``__import__`` finds the package's own modules first."""
        return {**vars(builtins), "__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names __import__ has
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level == 0 and self.owns(name):
            module = importlib.import_module(self.qualify(name))
            if not fromlist:
                return sys.modules[self.qualify(name.partition(".")[0])]
            everything = getattr(module, "__all__", ()) if "*" in fromlist else ()
            for item in (*fromlist, *everything):
                if isinstance(item, str) and not hasattr(module, item) and self.find(f"{name}.{item}"):
                    importlib.import_module(self.qualify(f"{name}.{item}"))
            return module
        found = builtins.__import__(name, globals, locals, fromlist or (), level)
        return _Importlib(self) if found is importlib else found


class _Importlib(types.ModuleType):
    """The module ``importlib`` as the package's code sees it: ``import_module`` finds its own modules first."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__("importlib", importlib.__doc__)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)

    def import_module(self, name: str, package: str | None = None) -> types.ModuleType:
        """Import a module by its name, which may be one of the package's own and relative to ``package``."""
        if name.startswith(".") and package:
            name = importlib.util.resolve_name(name, package)
        return importlib.import_module(self._namespace.qualify(name) if self._namespace.owns(name) else name, package)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and loads the modules of one namespace, from memory."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(f"{self.namespace.root}."):
            return None
        found = self.namespace.find(self._own(fullname))
        if found is None:
            return None
        origin, real = self.namespace.location(found[0])
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=found[2])
        spec.has_location = real
        if found[2]:
            spec.submodule_search_locations = []
        return spec

    def exec_module(self, module: types.ModuleType) -> None:
        name = self._own(module.__name__)
        found = self.namespace.find(name)
        assert found is not None
        module.__dict__["__builtins__"] = self.namespace.builtins()
        where = self.namespace.location(found[0])[0]
        exec(compile(found[1], where, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the gate has passed

    def get_source(self, fullname: str) -> str | None:
        found = self.namespace.find(self._own(fullname))
        return None if found is None else importlib.util.decode_source(found[1])

    def is_package(self, fullname: str) -> bool:
        found = self.namespace.find(self._own(fullname))
        return found is not None and found[2]

    def get_data(self, path: str) -> bytes:
        """Return a file beside the modules (``pkgutil.get_data``)."""
        return Path(path).read_bytes()

    def get_resource_reader(self, fullname: str) -> importlib.resources.readers.FileReader | None:
        """Return what ``importlib.resources`` reads the files beside a package with, if there are any."""
        found = self.namespace.find(self._own(fullname))
        if found is None or not found[2]:
            return None
        origin, real = self.namespace.location(found[0])
        if not real:
            return None
        loader = importlib.machinery.SourceFileLoader(fullname, origin)  # of use for its path alone
        return importlib.resources.readers.FileReader(loader)

    def _own(self, fullname: str) -> str:
        return fullname.removeprefix(f"{self.namespace.root}.")
