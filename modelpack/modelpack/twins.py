"""Twins: the same model in a second format, used only because it has been held to the first one's answers.

Labels, integers and text must be equal; floats within a recorded tolerance (spec/08-flavors.md#twins).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modelpack import coerce, render
from modelpack.dtypes import ListType
from modelpack.errors import FlavorError, InputError, OutputError
from modelpack.flavor import Converter, Predictor, SaveContext, Saved
from modelpack.frame import Frame, Vector
from modelpack.learned import Learned
from modelpack.manifest import Checked, Tolerance
from modelpack.probes import boundaries, joined, probes
from modelpack.recording import Part
from modelpack.signature import IO, Json, Signature

__all__ = ["TOLERANCE", "check", "make"]

TOLERANCE = Tolerance(rtol=1e-4, atol=1e-6)
_SHOWN = 5


def make(
    converter: Converter,
    model: object,
    saved: Saved,
    learned: Learned,
    context: SaveContext,
    *,
    against: str = "native",
) -> Part:
    """Write the model, which is saved as ``saved``, in the converter's format too, and check it.

    ``against`` is the id of the payload it was saved as; the directory of ``context`` has the new payload's.

    Raises:
        FlavorError: there is no conversion (``conversion-unsupported``), or it answers differently (``twin-differs``).
    """
    made = converter.convert(model, saved, context)
    checked = check(saved.predictor, made.predictor, learned, thresholds=made.thresholds, against=against)
    payload = context.directory.name
    return Part(flavor=converter.name, version=converter.version, payload=payload, saved=made, checked=checked)


def check(
    original: Predictor,
    twin: Predictor,
    learned: Learned,
    *,
    thresholds: Mapping[str | int, Sequence[float]] | None = None,
    against: str = "native",
) -> Checked:
    """Return the record of the check, or refuse the twin.

    Rows that the original itself refuses are left out. Every value of a param that changes the outputs is tried; one
    that the twin does not offer (it raises InputError ``param-unsupported``) is left out.

    Raises:
        FlavorError: the twin answers differently (``twin-differs``); the message shows on which rows.
    """
    signature = learned.signature
    assert learned.frame is not None
    rows, largest = 0, 0.0
    for params, outputs in _calls(signature):
        pair = _Pair(original, twin, params, outputs)
        if not pair.offered(learned.frame):
            continue
        frames = joined(probes(learned.frame, signature.inputs, thresholds or {}))
        beside = boundaries(learned.frame, pair.labels)
        for frame in [*frames, *([beside] if beside is not None else [])]:
            compared, difference = pair.compare(frame)
            rows, largest = rows + compared, max(largest, difference)
    if not rows:
        raise FlavorError("no row could be compared", code="twin-unchecked", path="example")
    return Checked(against=against, rows=rows, tolerance=TOLERANCE, largest_difference=largest)


def _calls(signature: Signature) -> Iterator[tuple[dict[str, Any], IO | None]]:
    """Yield the params of each kind of call, and what it must give."""
    defaults = coerce.params({p.name: p.default for p in signature.params if p.default is not None}, signature)
    yield defaults, signature.outputs
    changing = [p for p in signature.params if p.changes_outputs and p.constraints and p.constraints.enum]
    for values in itertools.product(*(p.constraints.enum for p in changing if p.constraints and p.constraints.enum)):
        params = {**defaults, **{p.name: value for p, value in zip(changing, values, strict=True)}}
        if params != defaults:
            yield params, None


class _Pair:
    """The original and its twin under the same params."""

    def __init__(self, original: Predictor, twin: Predictor, params: Mapping[str, Any], outputs: IO | None) -> None:
        self._original, self._twin = original, twin
        self._params, self._outputs = params, outputs

    def offered(self, frame: Frame) -> bool:
        try:
            self._answer(self._twin, frame)
        except InputError as exc:
            return exc.code != "param-unsupported"
        except Exception:
            # Left to the comparison, which says on which rows.
            return True
        return True

    def labels(self, frame: Frame) -> np.ndarray[Any, Any]:
        answer = self._answer(self._original, frame)
        arrays = list(_arrays(answer).values())
        return arrays[0] if len(arrays) == 1 else np.empty(0)

    def compare(self, frame: Frame) -> tuple[int, float]:
        """Return how many rows were compared, and the largest difference of floats in units of the tolerance."""
        try:
            wanted = self._answer(self._original, frame)
        except Exception:
            if frame.rows == 1:
                return 0, 0.0
            # One row may spoil the rest: halve until it is alone.
            middle = frame.rows // 2
            parts = [self.compare(frame.slice(0, middle)), self.compare(frame.slice(middle, frame.rows))]
            return sum(rows for rows, _ in parts), max(difference for _, difference in parts)
        try:
            got = self._answer(self._twin, frame)
        except Exception as exc:
            raise _differs(f"the twin raised {type(exc).__name__} where the original answers: {exc}") from exc
        return frame.rows, _compared(wanted, got)

    def _answer(self, predictor: Predictor, frame: Frame) -> Frame:
        raw = predictor.predict(render.to(frame, predictor.form), self._params)
        if isinstance(self._outputs, Json):
            raise OutputError("an answer of any JSON cannot be compared", code="twin-unchecked")
        return coerce.outputs(raw, self._outputs, rows=frame.rows)


def _arrays(frame: Frame) -> dict[str, np.ndarray[Any, Any]]:
    if frame.columns is not None:
        return {name: _physical(vector) for name, vector in frame.columns.items()}
    return dict(frame.tensors or {})


def _physical(vector: Vector) -> np.ndarray[Any, Any]:
    """Return the values; lists of floats, all of one length, as a matrix, so that they are compared as floats are."""
    if isinstance(vector.type, ListType) and vector.type.items.type in ("float32", "float64"):
        with contextlib.suppress(TypeError, ValueError):
            return np.array(vector.data.tolist(), dtype=np.float64)
    return vector.data


def _compared(wanted: Frame, got: Frame) -> float:
    ours, theirs = _arrays(wanted), _arrays(got)
    if ours.keys() != theirs.keys():
        raise _differs(f"the twin answers with {', '.join(theirs)} instead of {', '.join(ours)}")
    largest = 0.0
    for name, one in ours.items():
        other = theirs[name]
        if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
            raise _differs(f"{name}: {other.dtype} {other.shape} instead of {one.dtype} {one.shape}")
        if one.dtype.kind == "f":
            largest = max(largest, _floats(name, one, other))
        elif not np.array_equal(one, other):
            raise _differs(_rows(name, one, other, np.asarray(one != other)))
    return largest


def _floats(name: str, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    wide, near = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        units = np.abs(wide - near) / (TOLERANCE.atol + TOLERANCE.rtol * np.abs(wide))
    same = (wide == near) | (np.isnan(wide) & np.isnan(near))
    units = np.where(same, 0.0, np.where(np.isnan(units), np.inf, units))
    if (units > 1).any():
        raise _differs(_rows(name, one, other, units > 1))
    return float(units.max(initial=0.0))


def _rows(name: str, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], differ: np.ndarray[Any, Any]) -> str:
    places = np.argwhere(differ)
    shown = [f"{name}{list(map(int, p))}: {one[tuple(p)]} and {other[tuple(p)]}" for p in places[:_SHOWN]]
    return f"{len(places)} of {differ.size} answers differ: " + "; ".join(shown)


def _differs(what: str) -> FlavorError:
    return FlavorError(
        f"the twin is not the same model: {what}",
        code="twin-differs",
        path="also",
        hint="Save without it; the package's first flavor is complete by itself.",
    )
