"""Probing rows: what they hold, and that they stay rows the signature takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelpack.frame import Frame, Vector
from modelpack.probes import boundaries, joined, probes
from modelpack.signature import Column, Table


def vector(values: Any, kind: str = "float64", missing: Any = None) -> Vector:
    dtype = object if kind == "utf8" else kind
    return Vector(type=kind, data=np.array(values, dtype), missing=None if missing is None else np.array(missing))


def table(**nullable: bool) -> Table:
    return Table(columns=tuple(Column(name=n, type="float64", nullable=v) for n, v in nullable.items()))


def values(frames: list[Frame], name: str) -> set[float]:
    return {float(v) for frame in frames for v in (frame.columns or {})[name].data}


def test_the_example_comes_first() -> None:
    frame = Frame(rows=2, columns={"a": vector([1.0, 2.0])})
    assert probes(frame, None, {})[0] is frame


def test_thresholds_are_met_from_both_sides_in_both_precisions() -> None:
    frame = Frame(rows=2, columns={"a": vector([0.0, 1.0])})
    found = values(probes(frame, None, {"a": [0.1]}), "a")
    narrow = np.float32(0.1)
    assert {0.1, np.nextafter(0.1, 1), np.nextafter(0.1, 0)} <= found
    assert {
        float(narrow),
        float(np.nextafter(narrow, np.float32(1))),
        float(np.nextafter(narrow, np.float32(0))),
    } <= found


def test_tensors_are_probed_by_position() -> None:
    frame = Frame(rows=2, tensors={"x": np.array([[0.0, 5.0], [1.0, 6.0]])})
    first, second = (
        np.concatenate([(f.tensors or {})["x"][:, place] for f in probes(frame, None, {1: [5.5]})]) for place in (0, 1)
    )
    assert 5.5 in second
    assert 5.5 not in first


def test_integers_stay_in_their_range() -> None:
    frame = Frame(rows=2, columns={"a": vector([0, 255], "uint8")})
    found = values(probes(frame, None, {"a": [3.5, 1e9]}), "a")
    assert {0, 1, 3, 4, 254, 255} <= found


@pytest.mark.parametrize(("nullable", "gone"), [(True, 2), (False, 0)])
def test_values_are_missing_only_where_they_may_be(nullable: bool, gone: int) -> None:
    frame = Frame(rows=2, columns={"a": vector([0.0, 1.0])})
    missing = [(f.columns or {})["a"].missing for f in probes(frame, table(a=nullable), {})]
    assert sum(int(one.sum()) for one in missing if one is not None) == gone


def test_a_missing_text_is_none() -> None:
    inputs = Table(columns=(Column(name="a", type="utf8", nullable=True),))
    frame = Frame(rows=2, columns={"a": vector(["x", "y"], "utf8")})
    (unset,) = [f for f in probes(frame, inputs, {}) if (f.columns or {})["a"].missing is not None]
    assert (unset.columns or {})["a"].data.tolist() == [None, None]


def _rows(frame: Frame) -> list[Any]:
    columns = frame.columns or {}
    return list(zip(columns["a"].data, columns["b"].data, strict=True))


def test_columns_are_shuffled_against_each_other() -> None:
    frame = Frame(rows=20, columns={n: vector(np.arange(20.0)) for n in ("a", "b")})
    pairs = {(a, b) for f in probes(frame, None, {}) for a, b in _rows(f)}
    assert any(a != b and 0 < a < 19 and 0 < b < 19 for a, b in pairs)


def test_no_rows_give_no_probes() -> None:
    frame = Frame(rows=0, columns={"a": vector([])})
    assert probes(frame, None, {}) == [frame]


def test_what_is_no_number_is_left_as_it_is() -> None:
    frame = Frame(rows=2, columns={"a": vector(["x", "y"], "utf8")})
    assert {v for f in probes(frame, None, {}) for v in (f.columns or {})["a"].data} == {"x", "y"}
    cube = Frame(rows=2, tensors={"x": np.zeros((2, 2, 2))})
    assert all((f.tensors or {})["x"].shape == (2, 2, 2) for f in probes(cube, None, {}))


def test_fewer_frames_hold_the_same_rows() -> None:
    frames = probes(Frame(rows=2, columns={"a": vector([0.0, 1.0])}), table(a=True), {"a": [0.5]})
    found = list(joined(frames))
    assert len(found) == 1
    assert found[0].rows == sum(frame.rows for frame in frames)
    assert len(list(joined([Frame(rows=3000, columns={"a": vector(np.zeros(3000))})] * 3))) == 3
    assert list(joined([])) == []


def test_boundaries_lie_close_beside_the_change() -> None:
    frame = Frame(rows=2, tensors={"x": np.array([[0.0], [1.0]])})
    found = boundaries(frame, lambda f: ((f.tensors or {})["x"][:, 0] > 0.3).astype(np.int64))
    assert found is not None
    np.testing.assert_allclose((found.tensors or {})["x"][:, 0], 0.3, atol=1e-8)
    columns = Frame(rows=2, columns={"a": vector([0.0, 1.0]), "t": vector(["p", "q"], "utf8")})
    found = boundaries(columns, lambda f: ((f.columns or {})["a"].data > 0.3).astype(np.int64))
    assert found is not None
    np.testing.assert_allclose((found.columns or {})["a"].data, 0.3, atol=1e-8)


@pytest.mark.parametrize("answer", [np.zeros(2), np.zeros((2, 2), np.int64), np.zeros(2, np.int64), np.empty(0)])
def test_answers_without_labels_that_change_have_no_boundaries(answer: Any) -> None:
    frame = Frame(rows=2, tensors={"x": np.array([[0.0], [1.0]])})
    assert boundaries(frame, lambda f: answer) is None
