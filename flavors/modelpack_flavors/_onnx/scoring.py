"""An ONNX graph behind one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.audits.onnx_graph import Facts, Value
from modelpack.errors import FlavorError, InputError
from modelpack.flavor import Form
from modelpack.frame import Frame
from modelpack_flavors._onnx.casting import ELEMENTS, fault
from modelpack_flavors._onnx.ports import Inputs, batch_of
from modelpack_flavors._onnx.sessions import OPTIONS, check_options, open_session

__all__ = ["KEYS", "Scorer", "build"]

Array = np.ndarray[Any, Any]
# What a package may say of how its graph is called; besides, the options of a session.
KEYS = frozenset({"absent", "columns", "method", "methods", "outputs"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorer:
    """Runs a session on frames and gives the outputs that were asked for: one as it is, several by name.

    ``methods`` maps the values of the param ``method`` to outputs, for the twin of a model with methods. ``batch`` is
    the number of rows the graph is fixed to.
    """

    session: Any
    inputs: Inputs
    outputs: Sequence[Value]
    batch: int | None = None
    classes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    method: str | None = None
    methods: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: Form = "frame"

    def predict(self, data: Frame, params: Mapping[str, Any]) -> Any:
        """Return the outputs of the graph.

        Raises:
            InputError: the frame has not what the graph takes; a method that the graph does not answer for
                (``param-unsupported``); a number of rows that a graph of fixed size cannot take (``shape-mismatch``).
        """
        wanted = self._wanted(params)
        feeds = self.inputs.feed(data)
        if data.rows == 0 and (empty := _empty(wanted)) is not None:
            results = empty
        else:
            results = self._run([value.name for value in wanted], feeds, data.rows)
        answers = {value.name: self._answer(value, one) for value, one in zip(wanted, results, strict=True)}
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def _wanted(self, params: Mapping[str, Any]) -> Sequence[Value]:
        if self.method is None:
            return self.outputs
        method = params.get("method", self.method)
        names = self.methods.get(method)
        if names is None:
            raise InputError(
                "the ONNX form of this model does not have that method",
                code="param-unsupported",
                path="params.method",
                hint=f"It has: {', '.join(self.methods)}; the model's own flavor may have more.",
            )
        by_name = {value.name: value for value in self.outputs}
        return [by_name[name] for name in names]

    def _run(self, names: list[str], feeds: Mapping[str, Array], rows: int) -> list[Any]:
        if self.batch is None or rows == self.batch:
            found: list[Any] = self.session.run(names, feeds)
            return found
        if rows % self.batch:
            fault("shape-mismatch", f"the graph scores {self.batch} rows at a time", "")
        parts = [
            self.session.run(names, {key: array[start : start + self.batch] for key, array in feeds.items()})
            for start in range(0, rows, self.batch)
        ]
        return [_joined(pieces) for pieces in zip(*parts, strict=True)]

    def _answer(self, value: Value, raw: Any) -> Any:
        if value.kind != "sequence of map" or not isinstance(raw, list):
            return raw
        labels = self.classes.get(value.name) or (sorted(raw[0]) if raw else [])
        if any(row.keys() != set(labels) for row in raw):
            # Not one value for each class: only JSON holds that.
            return [{str(key): number for key, number in row.items()} for row in raw]
        return np.array([[row[label] for label in labels] for row in raw], np.float32).reshape(len(raw), len(labels))


def _joined(pieces: Sequence[Any]) -> Any:
    if isinstance(pieces[0], list):
        return [item for piece in pieces for item in piece]
    return np.concatenate(pieces)


def _empty(outputs: Sequence[Value]) -> list[Any] | None:
    """Return the answer to no rows, which few graphs can be asked for; None if the shapes do not tell."""
    found: list[Any] = []
    for value in outputs:
        if value.kind == "sequence of map":
            found.append([])
        elif value.kind == "tensor" and value.shape and all(isinstance(dim, int) for dim in value.shape[1:]):
            dtype = ELEMENTS[value.element]
            found.append(np.empty((0, *value.shape[1:]), dtype=object if dtype == "utf8" else dtype))
        else:
            return None
    return found


def build(facts: Facts, source: bytes | Path, config: Mapping[str, Any]) -> Scorer:
    """Return the predictor for an audited model, called as ``config`` says.

    Raises:
        FlavorError: the config does not fit the model (``config-invalid``), or onnxruntime is too old.
        PackageError: onnxruntime does not take the model.
    """
    outputs = {value.name: value for value in facts.outputs}
    wanted = config.get("outputs", list(outputs))
    columns, methods = config.get("columns", {}), config.get("methods", {})
    if not set(config) <= KEYS | OPTIONS or not _names(wanted) or not set(wanted) <= set(outputs) or not wanted:
        raise _invalid("the outputs are not ones of the graph", "outputs")
    inputs = {value.name for value in facts.inputs}
    if not isinstance(columns, Mapping) or (columns and set(columns) != inputs) or not _lists(columns):
        raise _invalid("the columns are not those of the graph's inputs", "columns")
    good = isinstance(methods, Mapping) and _lists(methods) and {n for m in methods.values() for n in m} <= set(wanted)
    if not good or (config.get("method") is not None and config["method"] not in methods):
        raise _invalid("the methods are not those of the graph's outputs", "methods")
    if not isinstance(config.get("absent", ""), str):
        raise _invalid("what stands for a missing text is no text", "absent")
    check_options(config, FlavorError, "config-invalid", "config")
    return Scorer(
        session=open_session(facts, source, config),
        inputs=Inputs(values=facts.inputs, columns=columns, absent=config.get("absent")),
        outputs=[outputs[name] for name in wanted],
        batch=batch_of(facts),
        classes=facts.classes,
        method=config.get("method"),
        methods=methods,
    )


def _names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _lists(value: Mapping[str, Any]) -> bool:
    return all(_names(names) and len(names) for names in value.values())


def _invalid(message: str, key: str) -> FlavorError:
    return FlavorError(message, code="config-invalid", path=f"config.{key}")
