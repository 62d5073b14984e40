"""Params of a call: defaults filled in, unknown ones refused, constraints checked."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from decimal import Decimal
from typing import Any

from modelpack.coerce.cells import cell, is_missing
from modelpack.coerce.faults import Collector, Misfit, field, join
from modelpack.coerce.scalars import Wire, kind
from modelpack.dtypes import Item, describe
from modelpack.errors import InputError, SignatureError
from modelpack.signature import Constraints, Param, Signature

__all__ = ["changes_outputs", "check_defaults", "params"]


def params(
    values: Mapping[str, Any] | None, signature: Signature, *, wire: Wire = "python", at: str = "params"
) -> dict[str, Any]:
    """Return the value of every param of the signature, in its canonical form.

    Raises:
        InputError: a param is unknown, missing, of another type, or outside its constraints.
    """
    collector = Collector()
    given = {} if values is None else values
    if not isinstance(given, Mapping):
        raise collector.fail("type-mismatch", at, f"{kind(given)} where an object of params is expected")
    known = {param.name for param in signature.params}
    for name in given:
        if name not in known:
            hint = f" (params: {', '.join(sorted(known))})" if known else " (it has none)"
            message = f"the model has no such param{hint}"
            collector.add("param-unknown", join(at, field(str(name))), message)
    out: dict[str, Any] = {}
    for param in signature.params:
        path = join(at, field(param.name))
        try:
            out[param.name] = _value(given, param, wire)
        except Misfit as misfit:
            collector.add(misfit.code, path + misfit.path, misfit.message)
    collector.finish()
    return out


def check_defaults(signature: Signature) -> None:
    """Check that every default fits its own param.

    Raises:
        SignatureError: ``param-invalid``, with the param's path in the signature.
    """
    for i, param in enumerate(signature.params):
        if param.default is not None:
            alone = Signature(params=(param,))
            try:
                params({param.name: param.default}, alone, wire="json")
            except InputError as exc:
                path = f"signature.params[{i}].default"
                raise SignatureError(
                    f"the default does not fit: {exc.message}", code="param-invalid", path=path
                ) from exc


def changes_outputs(params: Mapping[str, Any], signature: Signature) -> bool:
    """Say whether a param, in its canonical form, has another value than its default and so changes the outputs."""
    return any(param.changes_outputs and params.get(param.name) != _default(param) for param in signature.params)


def _default(param: Param) -> Any:
    # The default is JSON in the manifest, whatever the wire of the call.
    return None if param.default is None else cell(param.default, param.type, "json")


def _value(given: Mapping[str, Any], param: Param, wire: Wire) -> Any:
    if param.name not in given:
        if param.default is None and not param.nullable:
            raise Misfit("param-missing", "a param without a default is missing")
        return _default(param)
    value = given[param.name]
    if is_missing(value, param.type, wire):
        if not param.nullable:
            raise Misfit("null-not-allowed", f"a missing value where {describe(param.type)} is expected")
        return None
    out = cell(value, param.type, wire)
    if param.constraints is not None:
        _constrain(out, param.constraints, param.type)
    return out


def _constrain(value: Any, limits: Constraints, dtype: Item) -> None:
    if limits.enum is not None and value not in [cell(choice, dtype, "json") for choice in limits.enum]:
        raise Misfit("param-constraint", f"must be one of {list(limits.enum)}")
    if isinstance(value, int | float | Decimal):
        if limits.minimum is not None and value < limits.minimum:
            raise Misfit("param-constraint", f"must be at least {limits.minimum}")
        if limits.maximum is not None and value > limits.maximum:
            raise Misfit("param-constraint", f"must be at most {limits.maximum}")
    if isinstance(value, Sized):
        if limits.min_length is not None and len(value) < limits.min_length:
            raise Misfit("param-constraint", f"must have a length of at least {limits.min_length}")
        if limits.max_length is not None and len(value) > limits.max_length:
            raise Misfit("param-constraint", f"must have a length of at most {limits.max_length}")
