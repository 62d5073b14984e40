"""Writing a model: canonical skops, or a pickle for those who ask for one."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import imports
from modelpack.audits import Audit
from modelpack.audits import skops as audits
from modelpack.errors import PackageError, SaveError
from modelpack_flavors._sklearn import invariants
from modelpack_flavors._sklearn.boosters import LIBRARIES
from modelpack_flavors._sklearn.canonical import archive
from modelpack_flavors._sklearn.describing import PICKLE_HINT, Description, refuse

__all__ = ["Payload", "write"]

_LIBRARY = "scikit-learn"
# Installed with it, and of no meaning for a payload that holds arrays.
_BESIDE = frozenset({"numpy", "scipy"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """What was written: the types it is made of and the distributions they come from."""

    types: tuple[str, ...]
    packages: tuple[str, ...]


def write(model: object, format_id: str, path: Path, code: Sequence[Path]) -> Payload:
    """Write ``model`` to ``path``.

    Raises:
        SaveError: it cannot be stored in this format (``model-unsupported``), or needs code that the package will
            not hold (``code-missing``).
    """
    own = {one.resolve().name.removesuffix(".py") for one in code}
    packages = [_LIBRARY]
    if format_id == "pickle":
        data, names = _pickled(model)
        foreign = {module for module, _ in names if not _standard(module)}
        _importable(names, own)
        types: tuple[str, ...] = ()
    else:
        data = _skops(model)
        found = _audited(data, path.name)
        names = {(name.rpartition(".")[0], name.rpartition(".")[2]) for name in found.unlisted}
        foreign = {module for module, _ in names}
        _importable(names, own)
        packages += sorted(LIBRARIES & {name.partition(".")[0] for name in found.types})
        types = found.types
        if not found.unlisted:
            _loadable(model, path.name)
    path.write_bytes(data)
    return Payload(types=types, packages=(*packages, *_distributions(foreign - own)))


def _skops(model: object) -> bytes:
    description = Description()
    try:
        root = description.node(model)
    except SaveError:
        raise
    except RecursionError as exc:
        raise SaveError("the model is nested too deeply", code="model-unsupported", hint=PICKLE_HINT) from exc
    except Exception as exc:  # whatever an object's own __reduce__ or __getstate__ raises
        raise SaveError(
            f"the model cannot be stored: {type(exc).__name__}: {exc}", code="model-unsupported", hint=PICKLE_HINT
        ) from exc
    return archive(root, description.members)


def _audited(data: bytes, entry: str) -> Audit:
    try:
        return audits.inspect(data, entry)[0]
    except PackageError as exc:
        raise SaveError(exc.message, code="model-unsupported", hint=PICKLE_HINT) from exc


def _loadable(model: object, entry: str) -> None:
    """Refuse what loading would refuse."""
    try:
        invariants.check(model, entry)
    except PackageError as exc:
        raise SaveError(exc.message, code="model-unsupported", hint=PICKLE_HINT) from exc


def _pickled(model: object) -> tuple[bytes, set[tuple[str, str]]]:
    """Return the pickle and the (module, name) of each class and function in it."""
    names: set[tuple[str, str]] = set()

    class Pickler(pickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            kind = obj if isinstance(obj, type) or (callable(obj) and hasattr(obj, "__qualname__")) else type(obj)
            names.add((str(getattr(kind, "__module__", None) or "builtins"), kind.__qualname__))
            return NotImplemented

    buffer = io.BytesIO()
    try:
        Pickler(buffer, protocol=5).dump(model)
    except Exception as exc:  # whatever an object's own __reduce__ or __getstate__ raises
        raise SaveError(
            f"the model cannot be pickled: {type(exc).__name__}: {exc}",
            code="model-unsupported",
            hint="Name functions instead of writing lambdas, and define them in a module given with code=.",
        ) from exc
    return buffer.getvalue(), names


def _importable(names: set[tuple[str, str]], own: set[str]) -> None:
    """Refuse what another process could not import: lambdas, what is defined in __main__, local modules not given."""
    checked: set[str] = set()
    for module, name in sorted(names):
        top = module.partition(".")[0]
        if top in ("__main__", "__mp_main__"):
            refuse(
                f"{name} is defined in the script that runs, which nobody else can import",
                "Put it into a module and give that with code=.",
            )
        if top in checked or top in own or _standard(module):
            continue
        checked.add(top)
        if not _installed(top):
            refuse(
                f"{module}.{name} comes from a module that no installed distribution has",
                f"Give its source with code=: save(..., code=[{top!r} or {top + '.py'!r}]).",
            )


def _standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _installed(top: str) -> bool:
    """Say whether a module comes from an installed distribution: quickly by its place, else by their records."""
    spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    origin = getattr(spec, "origin", None)
    places = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    if origin is not None and any(Path(origin).is_relative_to(place) for place in places):
        return True
    return bool(imports.distributions({top}))


def _distributions(modules: set[str]) -> list[str]:
    """Return the distributions that the modules come from, beyond those always named."""
    tops = {module.partition(".")[0] for module in modules} - {"sklearn", "numpy", "scipy", *sys.stdlib_module_names}
    return sorted(imports.distributions(tops).keys() - {_LIBRARY} - _BESIDE)
