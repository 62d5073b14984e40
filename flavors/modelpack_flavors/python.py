"""Any Python function, or class with ``predict``: from source files (``code=``) or as a cloudpickle.

Always class ``code``: loading it runs what the package holds.
"""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import sysconfig
import types
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from modelpack import imports
from modelpack.dtypes import ScalarName
from modelpack.errors import FlavorError, SaveError, TrustError, UsageError
from modelpack.flavor import Form, LoadContext, Predictor, SaveContext, Saved, only_options
from modelpack.optional import loaded
from modelpack.signature import Param
from modelpack.wanted import collected
from modelpack_flavors._pickles import unpickled

__all__ = ["FLAVOR"]

ENTRY = "model.cloudpickle"
_FORMS: tuple[str, ...] = get_args(Form)
_SCALARS: Mapping[type, ScalarName] = {bool: "bool", int: "int64", float: "float64", str: "utf8"}


class _Call:
    """A callable as a predictor: data first, then params as keywords or as one mapping."""

    def __init__(self, function: Callable[..., Any], form: Form) -> None:
        self.form: Form = form
        self._function = function
        self._keywords, self._mapping = _accepts(function)

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        answer = self._run(data, params)
        return collected(answer) if isinstance(answer, types.GeneratorType) else answer

    def _run(self, data: Any, params: Mapping[str, Any]) -> Any:
        if self._mapping:
            return self._function(data, dict(params))
        if self._keywords is None:
            return self._function(data, **params)
        return self._function(data, **{key: value for key, value in params.items() if key in self._keywords})


class _StreamingCall(_Call):
    """A predictor whose model has a generator: ``predict`` itself, or ``predict_stream`` beside it."""

    def __init__(self, function: Callable[..., Any], stream: Callable[..., Any], form: Form) -> None:
        super().__init__(function, form)
        self._stream = _Call(stream, form)

    def predict_stream(self, data: Any, params: Mapping[str, Any]) -> Iterator[Any]:
        yield from self._stream._run(data, params)


class PythonFlavor:
    """Saves functions, classes and instances with ``predict``."""

    name = "python"
    version = "1"
    formats: Sequence[str] = ("cloudpickle", "python-source")
    extra = "python"

    def matches(self, model: object) -> int:
        """Take what nobody else takes: a function, a class or an instance with ``predict``."""
        return 10 if callable(model) or callable(getattr(model, "predict", None)) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Record where the model is in ``code=``, or write it as a cloudpickle."""
        form = _form(context)
        live = model() if inspect.isclass(model) else model
        predictor = _predictor(live, form)
        params = _params(predictor)
        entrypoint = _entrypoint(model, context.code)
        if entrypoint is not None:
            return Saved(
                format="python-source",
                entry=None,
                predictor=predictor,
                config={"form": form},
                params=params,
                entrypoint=entrypoint,
            )
        own = _own_modules(context.code)
        raw, imported = _dump(live, own)
        (context.directory / ENTRY).write_bytes(raw)
        series = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return Saved(
            format="cloudpickle",
            entry=ENTRY,
            predictor=predictor,
            config={"form": form},
            packages=("cloudpickle",),
            imports=imported,
            declares={"type": f"{type(live).__module__}.{type(live).__qualname__}"},
            params=params,
            # A cloudpickle carries byte code, which only the same minor version of Python understands.
            python=f"=={series}.*",
        )

    def load(self, context: LoadContext) -> Predictor:
        """Import the entry point, or unpickle; both run code from the package, so both need the grant."""
        if not context.code_allowed:
            raise TrustError("loading it runs Python code from the package", code="code-not-allowed")
        form = context.config.get("form")
        if form not in _FORMS:
            raise FlavorError("no such form", code="config-invalid", path="flavors.config.form")
        if context.format == "python-source":
            if context.entrypoint is None:
                raise FlavorError("source code needs an entry point", code="config-invalid", path="flavors.entrypoint")
            found = context.namespace.resolve(context.entrypoint)
            return _predictor(found() if inspect.isclass(found) else found, form)
        raw = context.files.read(context.entry or ENTRY)
        return _predictor(unpickled(raw, context.namespace), form)


def _predictor(model: Any, form: Form) -> Predictor:
    function = getattr(model, "predict", model)
    if not callable(function):
        raise SaveError(
            "the model is neither callable nor has a predict method",
            code="model-invalid",
            hint="Give a function, or an object with predict(data).",
        )
    stream = getattr(model, "predict_stream", None)
    if callable(stream):
        return _StreamingCall(function, stream, form)
    if inspect.isgeneratorfunction(function):
        return _StreamingCall(function, function, form)
    return _Call(function, form)


def _accepts(function: Callable[..., Any]) -> tuple[frozenset[str] | None, bool]:
    """Return the keywords the function takes beside the data (None: any), and whether it takes one params mapping."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return frozenset(), False
    rest = [p for p in parameters if p.kind is not p.VAR_POSITIONAL][1:]
    if any(p.name == "params" for p in rest):
        return frozenset(), True
    if any(p.kind is p.VAR_KEYWORD for p in rest):
        return None, False
    return frozenset(p.name for p in rest), False


def _params(predictor: Predictor) -> tuple[Param, ...]:
    """Read params from the function's keywords that have a plain default."""
    assert isinstance(predictor, _Call)
    try:
        parameters = list(inspect.signature(predictor._function).parameters.values())[1:]
    except (TypeError, ValueError):
        return ()
    return tuple(
        Param(name=p.name, type=_SCALARS[type(p.default)], default=p.default)
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) and type(p.default) in _SCALARS
    )


def _form(context: SaveContext) -> Form:
    """Return the form the function takes its data in: as asked for, or as the example is."""
    asked = context.options.get("form")
    only_options("python", context.options, ["form"])
    if asked is not None:
        if asked not in _FORMS:
            raise UsageError(
                "no such form", code="option-invalid", path="options.form", hint=f"Choose from {', '.join(_FORMS)}."
            )
        form: Form = asked
        return form
    return _form_of(context.example)


def _form_of(example: Any) -> Form:
    pandas, numpy, pyarrow = loaded("pandas"), loaded("numpy"), loaded("pyarrow")
    if example is None or (pandas and isinstance(example, pandas.DataFrame | pandas.Series)):
        return "pandas"
    if numpy and isinstance(example, numpy.ndarray):
        return "numpy"
    if pyarrow and isinstance(example, pyarrow.Table | pyarrow.RecordBatch):
        return "arrow"
    if isinstance(example, Mapping):
        return "columns"
    return "records"


def _entrypoint(model: object, code: Sequence[Path]) -> str | None:
    """Return ``module:name`` if the model is a function or class that stands in the source files given."""
    if not code or not (inspect.isfunction(model) or inspect.isclass(model)):
        return None
    module, name = model.__module__, model.__qualname__
    if module.partition(".")[0] not in _own_modules(code) or "<" in name:
        return None
    return f"{module}:{name}"


def _own_modules(code: Sequence[Path]) -> frozenset[str]:
    return frozenset(path.resolve().name.removesuffix(".py") for path in code)


def _dump(model: object, own: frozenset[str]) -> tuple[bytes, tuple[str, ...]]:
    """Return the model as a cloudpickle, and what the functions in it import when they run."""
    import cloudpickle

    imported: set[str] = set()

    def note(code: types.CodeType) -> Any:
        imported.update(imports.of_code(code))
        return cloudpickle.Pickler.dispatch_table[types.CodeType](code)

    class Noting(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
        dispatch_table = ChainMap({types.CodeType: note}, cloudpickle.Pickler.dispatch_table)

    buffer = io.BytesIO()
    try:
        with _local_modules_by_value(cloudpickle, own):
            Noting(buffer).dump(model)
            return buffer.getvalue(), tuple(sorted(imported))
    except Exception as exc:
        raise SaveError(
            f"the model cannot be pickled: {type(exc).__name__}: {exc}",
            code="model-unpicklable",
            hint="Give its source files with code= and pass the function or class itself.",
        ) from exc


@contextmanager
def _local_modules_by_value(cloudpickle: Any, own: frozenset[str]) -> Iterator[None]:
    """Pickle by value what stands in modules that no other machine has: those not installed, not in ``code=``."""
    registered = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in own | {"__main__", "__mp_main__"} and _is_local(module):
            cloudpickle.register_pickle_by_value(module)
            registered.append(module)
    try:
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


_INSTALLED = tuple({str(Path(path).resolve()) for path in sysconfig.get_paths().values()})


def _is_local(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "") not in sys.modules:
        return False
    top = (module.__name__ or "").partition(".")[0]
    if top in ("modelpack", "modelpack_flavors", "modelpack_server"):
        return False
    return not _holds_installed(os.path.dirname(file))  # noqa: PTH120 - of some thousand modules


@functools.lru_cache(maxsize=4096)
def _holds_installed(folder: str) -> bool:
    where = Path(folder).resolve()
    # Also what `pip install --user` and Debian's packages put elsewhere.
    return bool({"site-packages", "dist-packages"} & set(where.parts)) or str(where).startswith(_INSTALLED)


FLAVOR = PythonFlavor()
