"""What a fitted model says of its input: names, number and types of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_flavors._sklearn.boosters import takes_numbers

__all__ = ["class_name", "signature", "tags_of", "takes_one_column", "takes_records"]

Kind = Literal["float64", "utf8", "any"]


def class_name(model: object) -> str:
    """Return the class of the model as ``module.name``."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def tags_of(model: object) -> Any:
    """Return scikit-learn's tags of the model, or None if it has none."""
    from sklearn.utils import get_tags

    try:
        return get_tags(model)
    except (AttributeError, TypeError, ValueError):
        return None


def first_step(model: Any) -> Any:
    """Return the first estimator that sees the rows: the first real step of nested pipelines."""
    while isinstance(getattr(model, "steps", None), list):
        steps = [step for _, step in model.steps if step is not None and step != "passthrough"]
        if not steps:
            break
        model = steps[0]
    return model


def _input_tags(model: object) -> Any:
    tags = tags_of(first_step(model))
    return None if tags is None else tags.input_tags


def takes_one_column(model: object) -> bool:
    """Say whether the model takes a one-dimensional list of values: texts, or labels to encode."""
    tags = _input_tags(model)
    return bool(tags and not tags.two_d_array and not tags.dict and (tags.string or tags.one_d_array))


def takes_records(model: object) -> bool:
    """Say whether the model takes one dict per row."""
    tags = _input_tags(model)
    return bool(tags and not tags.two_d_array and tags.dict)


def signature(model: Any, nulls: bool | Mapping[str, bool] | None) -> Signature | None:
    """Return what the fitted model says of its inputs, or None if it does not know how many columns it takes.

    ``nulls`` says where it takes missing values (``missing.accepted``).
    """
    names = getattr(model, "feature_names_in_", None)
    if names is not None and all(isinstance(name, str) for name in names):
        return Signature(inputs=Table(columns=tuple(_column(model, i, str(n), nulls) for i, n in enumerate(names))))
    if takes_one_column(model):
        first = first_step(model)
        if hasattr(first, "fit_transform") and tags_of(first).input_tags.string:
            return Signature(inputs=Tensors(tensors=(Tensor(name="input", dtype="utf8", shape=(None,)),)))
        return None
    count = getattr(model, "n_features_in_", None)
    if isinstance(count, int) and count > 0:
        kinds = {_type_of(model, i) for i in range(count)}
        kind = kinds.pop() if len(kinds) == 1 else "any"
        if kind != "any":
            missing = kind == "float64" and nulls is True
            tensor = Tensor(name="input", dtype=kind, shape=(None, count), nullable=missing)
            return Signature(inputs=Tensors(tensors=(tensor,)))
    return None


def _column(model: Any, index: int, name: str, nulls: bool | Mapping[str, bool] | None) -> Column:
    """Describe a column; one that no step looks at may be left out."""
    missing = bool(nulls.get(name) if isinstance(nulls, Mapping) else nulls)
    unused = not list(_kinds(model, index))
    return Column(name=name, type=_type_of(model, index), nullable=missing or unused, optional=unused)


def _type_of(model: Any, index: int) -> Kind:
    """Return the type of a column as the first estimator that looks at it knows it; "any" if none does."""
    kinds = set(_kinds(model, index))
    return kinds.pop() if len(kinds) == 1 else "any"


def _kinds(model: Any, index: int) -> Iterator[Kind]:
    first = first_step(model)
    indices = getattr(first, "_transformer_to_input_indices", None)
    if isinstance(indices, dict):
        for name, step, _ in first.transformers_:
            places = list(indices.get(name, ()))
            if index in places and not isinstance(step, str):
                yield from _kinds(step, places.index(index))
        return
    inner = getattr(first, "best_estimator_", None)
    if inner is not None:
        yield from _kinds(inner, index)
        return
    yield _kind(first, index)


def _kind(step: Any, index: int) -> Kind:
    categories = getattr(step, "categories_", None)
    statistics = getattr(step, "statistics_", None)
    tags = tags_of(step)
    if isinstance(categories, list) and index < len(categories):
        values = [value for value in categories[index].tolist() if value == value and value is not None]
        if values and all(isinstance(value, str) for value in values):
            return "utf8"
        return "float64" if categories[index].dtype.kind == "f" else "any"
    if statistics is not None and getattr(getattr(statistics, "dtype", None), "kind", "") == "O":
        return "any"
    if takes_numbers(step):
        return "float64"
    if tags is None or not type(step).__module__.startswith("sklearn."):
        return "any"
    if tags.input_tags.string and not tags.input_tags.two_d_array:
        return "utf8"
    return "any" if type(step).__name__ == "FunctionTransformer" else "float64"
