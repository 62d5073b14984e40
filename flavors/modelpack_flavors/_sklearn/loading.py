"""Reading a model: audit, check, build, check again; nothing is returned before that."""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from modelpack.audits import skops as audits
from modelpack.audits.skops_archive import malformed
from modelpack.environment import same_series
from modelpack.errors import EnvironmentMismatch, EnvironmentWarning, ModelpackError, PackageError, TrustError
from modelpack.flavor import LoadContext
from modelpack_flavors._sklearn import invariants
from modelpack_flavors._sklearn.building import Builder
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
    model = _built(walk, context)
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


def _built(walk: audits.Walk, context: LoadContext) -> Any:
    """Build the model out of what was audited, and of nothing else."""
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")  # what classes say of their own future
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            model = Builder(walk, _finder(walk, context)).root()
        except ModelpackError:
            raise
        except Exception as exc:  # classes raise whatever they like on a state that is not theirs
            _check_versions(seen, context)
            raise PackageError(
                f"the model cannot be built: {type(exc).__name__}: {exc}",
                code="payload-invalid",
                path=context.entry or "",
            ) from exc
    _check_versions(seen, context)
    return model


def _check_versions(seen: Iterable[warnings.WarningMessage], context: LoadContext) -> None:
    """Refuse a model of another release series, whatever the manifest says; the user may want it all the same."""
    for warning in (one.message for one in seen):
        saved, here = str(vars(warning)["original_sklearn_version"]), str(vars(warning)["current_sklearn_version"])
        if context.environment_policy == "ignore" or same_series(saved, here):
            continue
        said = f"the model was saved with scikit-learn {saved}; installed is {here}"
        if context.environment_policy == "warn":
            warnings.warn(f"{said}. Install scikit-learn=={saved}.", EnvironmentWarning, stacklevel=2)
        else:
            raise EnvironmentMismatch(
                said,
                code="environment-mismatch",
                path=context.entry or "",
                hint=f"Install scikit-learn=={saved}.",
            )


def _finder(walk: audits.Walk, context: LoadContext) -> Callable[[str, str], Any] | None:
    """Return a lookup that takes the package's own modules from the package; listed names are never looked up there."""
    if context.namespace is None or not context.code_allowed:
        return None

    def find(module: str, name: str) -> Any:
        if f"{module}.{name}" in walk.unlisted and context.namespace.owns(module):
            return getattr(context.namespace.import_module(module), name)
        return getattr(importlib.import_module(module), name)

    return find


def _unpickled(data: bytes, context: LoadContext) -> Any:
    if not context.code_allowed:
        raise _untrusted("the model is a pickle, which runs whatever it says", context.entry or "")
    own = context.namespace

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if own is not None and own.owns(module):
                found: Any = own.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
                return found
            return super().find_class(module, name)

    return Unpickler(io.BytesIO(data)).load()
