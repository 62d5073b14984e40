"""scikit-learn: estimators, pipelines and what is built like them, as skops files (docs/flavors/sklearn.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelpack.errors import UsageError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved, only_options
from modelpack.signature import Constraints, Param
from modelpack_flavors._sklearn import loading, missing, naming, saving
from modelpack_flavors._sklearn.predictor import METHODS, Scorer, form_of, methods_of, quickest

__all__ = ["FLAVOR"]

_OPTIONS = frozenset({"format", "method"})
_ENTRIES = {"skops": "model.skops", "pickle": "model.pkl"}


@dataclass(frozen=True, slots=True)
class SklearnFlavor:
    """Saves and loads scikit-learn models.

    Options of save: ``format`` ("skops", or "pickle" for class ``code``) and ``method``, the method that scores when
    the request names none.
    """

    name: str = "sklearn"
    version: str = "1"
    formats: Sequence[str] = ("skops", "pickle")
    extra: str = "sklearn"

    def matches(self, model: object) -> int:
        """Return 50 for estimators of scikit-learn and classes derived from them, 30 for objects built like them."""
        bases = type(model).__mro__
        if any(base.__name__ == "BaseEstimator" and base.__module__ == "sklearn.base" for base in bases):
            return 50
        like = all(callable(getattr(model, name, None)) for name in ("fit", "get_params", "set_params"))
        return 30 if like and not isinstance(model, type) and methods_of(model) else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write ``model.skops`` (or ``model.pkl``).

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model cannot be stored in the format asked for (``model-unsupported``).
        """
        format_id, method, methods = _options(model, context.options)
        payload = saving.write(model, format_id, context.directory / _ENTRIES[format_id], context.code)
        predictor = Scorer(
            model=model, method=method, form=form_of(model, context.example), flat=naming.takes_one_column(model)
        )
        nulls = missing.accepted(model)
        return Saved(
            format=format_id,
            entry=_ENTRIES[format_id],
            predictor=predictor,
            config={"method": method, "form": predictor.form, "flat": predictor.flat},
            packages=payload.packages,
            requires=("numpy", "scipy", *(["pandas"] if predictor.form == "pandas" else [])),
            declares={"estimator": naming.class_name(model), "methods": list(methods), "types": list(payload.types)},
            signature=naming.signature(model, nulls),
            params=_params(method, methods),
            nulls=nulls,
        )

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified bytes; every structure that compiled code trusts has been checked.

        Raises:
            TrustError: the file needs class ``code``, which is not granted (``code-not-allowed``).
            PackageError: the file is not what its format says (``payload-invalid``).
            EnvironmentMismatch: it was saved with another release series of scikit-learn (``environment-mismatch``).
        """
        model = loading.read(context)
        method = context.config.get("method")
        if method not in methods_of(model):
            loading.invalid("the model has no method of the name that its config says", context.entry)
        form = context.config.get("form") or form_of(model, None)
        scorer = Scorer(model=model, method=method, form=form, flat=bool(context.config.get("flat", False)))
        return quickest(scorer, context.signature)


def _options(model: object, options: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """Return the format, the method that scores, and all methods that can."""
    only_options("sklearn", options, _OPTIONS)
    format_id = options.get("format", "skops")
    if format_id not in list(_ENTRIES):
        raise UsageError("the format is neither skops nor pickle", code="option-invalid", path="options.format")
    methods = methods_of(model)
    method = options.get("method", methods[0] if methods else None)
    if method not in methods:
        raise UsageError(
            f"{naming.class_name(model)} has no method of that name that scores new rows"
            if "method" in options
            else f"{naming.class_name(model)} has no method that scores new rows",
            code="option-invalid" if "method" in options else "model-scores-nothing",
            path="options.method" if "method" in options else "",
            hint=f"It has: {', '.join(methods) or 'none'}; looked for {', '.join(METHODS)}.",
        )
    return format_id, method, methods


def _params(method: str, methods: Sequence[str]) -> list[Param]:
    if len(methods) < 2:
        return []
    return [
        Param(
            name="method",
            type="utf8",
            default=method,
            constraints=Constraints(enum=tuple(methods)),
            changes_outputs=True,
            description="The method of the model that scores.",
        )
    ]


FLAVOR = SklearnFlavor()
