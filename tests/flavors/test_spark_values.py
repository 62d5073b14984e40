"""Evaluating Spark ML with NumPy, without any Spark: how much at once, and what a StringIndexer makes of values."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from modelpack.errors import FlavorError, InputError
from modelpack.frame import Frame, Vector
from modelpack_flavors._spark.evaluating import Evaluator
from modelpack_flavors._spark.features import _indexed
from modelpack_flavors._spark.models import _gaussian
from modelpack_flavors._spark.values import Columns, Value


@pytest.mark.parametrize(
    ("rows", "width", "most"), [(9_000, 5_000, 838), (40, 5_000, 40), (9_000, 2, 8_936), (0, 3, 0)]
)
def test_wide_vectors_are_made_for_some_rows_at_a_time(rows: int, width: int, most: int) -> None:
    counts: list[int] = []

    def widen(found: Columns) -> None:
        number = found["number"].data
        counts.append(len(number))
        hot = np.zeros((len(number), width))
        hot[:, 0] = number
        found["hot"] = Value(hot)
        found["answer"] = Value(hot.sum(axis=1) * 2)
        found["pair"] = Value(hot[:, :2])

    numbers = np.arange(rows, dtype=np.float64)
    frame = Frame(rows=rows, columns={"number": Vector(type="float64", data=numbers)})

    answer = Evaluator([widen], ["answer", "pair"]).predict(frame, {})

    assert answer["answer"].to_pylist() == (numbers * 2).tolist()
    assert answer["pair"].to_pylist() == [[number, 0.0] for number in numbers]
    assert (sum(counts), max(counts)) == (rows, most)


def test_a_gaussian_model_takes_the_differences_of_one_class_at_a_time() -> None:
    rng = np.random.default_rng(3)
    x, theta, sigma = rng.normal(size=(50, 7)), rng.normal(size=(4, 7)), rng.uniform(1, 2, size=(4, 7))
    prior = np.log(np.full(4, 0.25))

    together = ((x[:, None, :] - theta) ** 2 / sigma).sum(axis=2) / 2
    expected = prior - together - np.log(sigma).sum(axis=1) / 2
    for rows in (x, np.asfortranarray(x)):
        np.testing.assert_array_equal(_gaussian(prior, theta, sigma)(rows), expected)


def indexed(values: list[Any], *, missing: list[bool] | None = None, keep: bool = False) -> list[float]:
    data = np.array(values, dtype=object)
    gone = None if missing is None else np.array(missing)
    found: list[float] = _indexed(
        "money", Value(data, gone), {"1.50": 0.0, "0.00": 1.0, "0.0000001": 2.0}, keep
    ).tolist()
    return found


def test_decimals_are_the_categories_that_spark_writes_them_as() -> None:
    assert indexed([Decimal("1.50"), Decimal("0.00"), Decimal("1E-7")]) == [0.0, 1.0, 2.0]
    assert indexed([Decimal("1.50"), None, "0.00"], missing=[False, True, False], keep=True) == [0.0, 3.0, 1.0]
    with pytest.raises(InputError, match="none that the model was trained on"):
        indexed([Decimal("9.99")])


@pytest.mark.parametrize("value", [b"1.50", ["1.50"], {"a": 1}], ids=["bytes", "list", "struct"])
def test_what_no_stringindexer_takes_is_refused(value: Any) -> None:
    data = np.empty(1, dtype=object)
    data[0] = value
    with pytest.raises(FlavorError, match="neither texts nor integers nor decimals"):
        _indexed("money", Value(data), {"1.50": 0.0}, True)
