"""Reading a model: audit, check, build, check again; nothing is returned before that."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from typing import Any, NoReturn

from modelpack.audits import Audit
from modelpack.audits import skops as audits
from modelpack.audits.skops_archive import malformed
from modelpack.errors import EnvironmentMismatch, PackageError, TrustError
from modelpack.flavor import LoadContext
from modelpack_flavors._sklearn import invariants
from modelpack_flavors._sklearn.states import States

__all__ = ["invalid", "read"]


def read(context: LoadContext) -> Any:
    """Return the model in the payload."""
    entry = context.entry or ""
    data = context.files.read(entry)
    if context.format == "pickle":
        return _unpickled(data, context)
    found, walk = audits.inspect(data, entry, States)
    if found.trust == "code" and not context.code_allowed:
        raise _untrusted(f"the model needs types that nobody has reviewed: {', '.join(found.unlisted)}", entry)
    model = _built(walk, found, context)
    invariants.check(model, entry, strict=found.trust != "code")
    return model


def invalid(message: str, entry: str | None) -> NoReturn:
    """Raise the error for a payload that is not what its format says."""
    malformed(message, entry or "")


def _untrusted(message: str, entry: str) -> TrustError:
    return TrustError(
        message,
        code="code-not-allowed",
        path=entry,
        hint="If you know who made it, allow exactly this package by its digest (docs/trust.md).",
    )


def _built(walk: audits.Walk, found: Audit, context: LoadContext) -> Any:
    """Let skops build the model out of what was audited, and of nothing else."""
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    archive = walk.archive
    own = context.namespace.modules if context.namespace is not None else frozenset()
    own = frozenset(top for top in own if any(name.partition(".")[0] == top for name in found.unlisted))
    trusted = [_qualified(name, own, context) for name in found.types]
    schema = _moved(archive.schema, own, context)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("schema.json", json.dumps(schema))
        for name in sorted(archive.names):
            target.writestr(name, archive.read(name))
    if own:
        context.namespace.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what classes say of their own future
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            return skops.io.loads(buffer.getvalue(), trusted=trusted)
        except InconsistentVersionWarning as warning:
            raise EnvironmentMismatch(
                f"the model was saved with scikit-learn {warning.original_sklearn_version}; "
                f"installed is {warning.current_sklearn_version}",
                code="environment-mismatch",
                path=context.entry or "",
                hint=f"Install scikit-learn=={warning.original_sklearn_version}.",
            ) from None
        except Exception as exc:  # skops and the classes themselves raise whatever they like on bad state
            raise PackageError(
                f"the model cannot be built: {type(exc).__name__}: {exc}",
                code="payload-invalid",
                path=context.entry or "",
            ) from exc


def _qualified(name: str, own: frozenset[str], context: LoadContext) -> str:
    return context.namespace.qualify(name) if name.partition(".")[0] in own else name


def _moved(schema: Any, own: frozenset[str], context: LoadContext) -> Any:
    """Return the schema with the package's own modules under the name they have in this process."""
    if not own:
        return schema
    if isinstance(schema, list):
        return [_moved(item, own, context) for item in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, own, context) for key, value in schema.items()}
    if isinstance(moved.get("__loader__"), str) and isinstance(moved.get("__module__"), str):
        moved["__module__"] = _qualified(moved["__module__"], own, context)
    return moved


def _unpickled(data: bytes, context: LoadContext) -> Any:
    if not context.code_allowed:
        raise _untrusted("the model is a pickle, which runs whatever it says", context.entry or "")
    own = context.namespace

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if own is not None and module.partition(".")[0] in own.modules:
                found: Any = own.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
                return found
            return super().find_class(module, name)

    return Unpickler(io.BytesIO(data)).load()
