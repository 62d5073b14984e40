"""scikit-learn models as ONNX graphs over float64 that answer in the same shapes and types (docs/twins.md)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelpack import coerce, infer, render
from modelpack.errors import FlavorError, ModelpackError
from modelpack.flavor import Saved
from modelpack.optional import require
from modelpack.signature import Signature, Table
from modelpack_flavors._onnx import imputing, trees
from modelpack_flavors._onnx.building import unsupported
from modelpack_flavors._onnx.casting import ELEMENTS

__all__ = ["Converted", "convert"]

OPSETS = {"": 18, "ai.onnx.ml": 3, "com.microsoft": 1, trees.DOMAIN: 1}
_STRING = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A graph, how it is called, and the values of columns at which its answer may jump."""

    raw: bytes
    config: Mapping[str, Any]
    thresholds: Mapping[str | int, Sequence[float]] = field(default_factory=dict)


def convert(model: Any, source: Saved, example: Any) -> Converted:
    """Return the model as a graph.

    Raises:
        UsageError: skl2onnx is not installed (``extra-missing``).
        FlavorError: there is no conversion (``conversion-unsupported``).
    """
    if not hasattr(model, "get_params"):
        raise unsupported(f"a {type(model).__name__}")
    require("skl2onnx", what="An ONNX form of a scikit-learn model", extra="twins")
    answers = _answers(model, source, example)
    default = source.config.get("method")
    if default not in answers:
        raise unsupported(f"{default} of a {type(model).__name__}")
    plan = _plan(model, example)
    proto = _graph(imputing.with_absent(model), plan)
    outputs = {method: _finish(proto.graph, place, method, answer) for method, (place, answer) in answers.items()}
    del proto.graph.output[: -len(outputs)]
    names = list(outputs.values())
    config: dict[str, Any] = {"method": default, "methods": {m: [n] for m, n in outputs.items()}, "outputs": names}
    if any(value.type.tensor_type.elem_type == _STRING for value in proto.graph.input):
        config["absent"] = imputing.ABSENT
    if plan.columns:
        given = [value.name for value in proto.graph.input]
        config["columns"] = dict(zip(given, plan.columns, strict=True))
    raw = proto.SerializeToString(deterministic=True)
    return Converted(raw=raw, config=config, thresholds=_thresholds(model, plan.names))


def _answers(model: Any, source: Saved, example: Any) -> dict[str, tuple[int, Any]]:
    """Return for each method that the graph can answer for the position in skl2onnx's outputs, and what it answers."""
    frame = coerce.inputs(example, Signature(inputs=infer.io(example)))
    data = render.to(frame, source.predictor.form)
    found = {}
    for method, place in _methods(model).items():
        answer = source.predictor.predict(data, {"method": method})
        if isinstance(answer, np.ndarray) and answer.ndim in (1, 2) and _element(answer):
            found[method] = (place, answer)
    return found


def _element(answer: Any) -> int:
    """Return the ONNX type of the elements of an answer, 0 if it has none."""
    if answer.dtype.kind in "OU":
        return _STRING if all(isinstance(value, str) for value in answer.reshape(-1).tolist()) else 0
    return {name: number for number, name in ELEMENTS.items()}.get(str(answer.dtype), 0)


def _methods(model: Any) -> dict[str, int]:
    """Return the methods that the graph can answer for, each with the position of its output in skl2onnx's graph."""
    last = model.steps[-1][1] if isinstance(getattr(model, "steps", None), list) else model
    kind = getattr(last, "_estimator_type", None) or _kind_by_tags(last)
    if kind == "classifier":
        found = {"predict": 0}
        if hasattr(model, "predict_proba"):
            found["predict_proba"] = 1
        return found
    if kind == "clusterer" and hasattr(model, "transform"):
        return {"predict": 0, "transform": 1}
    return {"predict": 0} if hasattr(model, "predict") else {"transform": 0}


def _kind_by_tags(model: Any) -> str | None:
    from sklearn.utils import get_tags

    try:
        found: str | None = get_tags(model).estimator_type
    except (AttributeError, TypeError, ValueError):
        return None
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """The inputs of the graph: their types for skl2onnx, the columns each is made of, the names of the features."""

    types: Sequence[tuple[str, Any]]
    columns: Sequence[list[str]]
    names: Sequence[str]


def _plan(model: Any, example: Any) -> _Plan:
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    kinds = _kinds(example) if names else {}
    split = type(_first(model)).__name__ == "ColumnTransformer"
    if split and kinds and _by_name(_first(model)):
        # A column that no step uses may be missing from the example.
        names = [name for name in names if name in kinds]
    if names and (split or any(kind not in _NUMBERS for kind in kinds.values())):
        # One input for each column, so that each has its own type and the transformer finds it by name.
        types = [(name, _column_type(kinds.get(name))) for name in names]
        return _Plan(types=types, columns=[[name] for name in names], names=names)
    if names:
        return _Plan(types=[("X", DoubleTensorType([None, len(names)]))], columns=[names], names=names)
    if hasattr(model, "n_features_in_"):
        return _Plan(types=[("X", DoubleTensorType([None, int(model.n_features_in_)]))], columns=[], names=())
    return _Plan(types=[("X", StringTensorType([None, 1]))], columns=[], names=())


_NUMBERS = {"float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64))}


def _kinds(example: Any) -> dict[str, Any]:
    try:
        io = infer.io(example)
    except ModelpackError:
        return {}
    return {column.name: column.type for column in io.columns} if isinstance(io, Table) else {}


def _column_type(kind: Any) -> Any:
    from skl2onnx.common.data_types import BooleanTensorType, DoubleTensorType, StringTensorType

    values = getattr(kind, "values", kind)
    if values == "utf8":
        return StringTensorType([None, 1])
    if values == "bool":
        return BooleanTensorType([None, 1])
    if values is None or values in _NUMBERS:
        return DoubleTensorType([None, 1])
    raise unsupported(f"a model with a column of type {kind}")


def _by_name(transformer: Any) -> bool:
    """Say whether each step of a ColumnTransformer names its columns."""
    parts = [[columns] if isinstance(columns, str) else columns for _, _, columns in transformer.transformers]
    return transformer.remainder == "drop" and all(
        isinstance(part, list | tuple) and all(isinstance(name, str) for name in part) for part in parts
    )


def _first(model: Any) -> Any:
    while isinstance(getattr(model, "steps", None), list) and model.steps:
        model = model.steps[0][1]
    return model


def _graph(model: Any, plan: _Plan) -> Any:
    """Return skl2onnx's graph, with our own trees in it, under names that do not depend on the process."""
    from skl2onnx import convert_sklearn
    from sklearn.impute import SimpleImputer

    functions, shapes = trees.converters()
    functions, shapes = {**functions, SimpleImputer: imputing.convert}, {**shapes, SimpleImputer: imputing.shape}
    known = {"custom_conversion_functions": functions, "custom_shape_calculators": shapes}
    given = {"name": "model", "initial_types": list(plan.types), "target_opset": OPSETS, **known}
    options = {id(model): {"zipmap": False}} if hasattr(model, "classes_") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                proto = convert_sklearn(model, options=options, **given)
            except NameError:
                # Some classifiers never make a map, and so have no such option.
                proto = convert_sklearn(model, **given)
        except FlavorError:
            raise
        except Exception as exc:  # skl2onnx raises whatever its converters meet
            raise FlavorError(
                f"skl2onnx does not convert the model: {type(exc).__name__}: {str(exc)[:200]}",
                code="conversion-unsupported",
                path="also",
                hint="Save it without the ONNX form.",
            ) from exc
    trees.settle(proto)
    return proto


def _finish(graph: Any, position: int, method: str, answer: Any) -> str:
    """Give the graph an output in the type and shape that the method answers in; return its name."""
    from onnx import helper, numpy_helper

    given = graph.output[position]
    name, kind, wanted = given.name, given.type.tensor_type.elem_type, _element(answer)
    if (kind == _STRING) != (wanted == _STRING):
        raise unsupported(f"a model whose {method} answers with {answer.dtype}")
    used = {value for node in graph.node for value in node.output} | {value.name for value in graph.input}
    out = next(
        f"{method}{mark}" for mark in ("", *(f"_{i}" for i in range(len(used)))) if f"{method}{mark}" not in used
    )
    if kind != wanted:
        graph.node.append(helper.make_node("Cast", [name], [f"{out}__cast"], name=f"{out}__cast", to=wanted))
        name = f"{out}__cast"
    shape = [-1, *answer.shape[1:]]
    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{out}__shape"))
    graph.node.append(helper.make_node("Reshape", [name, f"{out}__shape"], [out], name=f"{out}__reshape"))
    graph.output.append(helper.make_tensor_value_info(out, wanted, [None, *answer.shape[1:]]))
    return out


def _thresholds(model: Any, names: Sequence[str]) -> dict[str | int, Sequence[float]]:
    """Return where the answer jumps, for a model of trees that sees the columns as they come."""
    if isinstance(getattr(model, "steps", None), list):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        model = steps[0] if len(steps) == 1 else None
    forest = None if model is None else trees.trees_of(model)
    found = {} if forest is None else trees.thresholds(forest)
    return {names[place] if place < len(names) else place: values for place, values in found.items()}
