"""Validators of objects whose state lives in compiled code: each yields what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["NATIVE", "tree"]


def tree(value: Any) -> Iterator[str]:
    """Check a decision tree: children come after their parent, features and values exist."""
    import numpy as np

    count = value.node_count
    left, right, feature = value.children_left, value.children_right, value.feature
    if count < 1 or not len(left) == len(right) == len(feature) == count:
        yield "its arrays are not as long as its number of nodes"
        return
    if not ((value.n_classes >= 1) & (value.n_classes <= value.max_n_classes)).all():
        yield "its counts of classes are out of range"
    leaf = left == -1
    if not np.array_equal(leaf, right == -1):
        yield "a node has one child"
    number = np.arange(count)
    for child in (left, right):
        inner = child[~leaf]
        if not ((inner > number[~leaf]) & (inner < count)).all():
            yield "a child does not come after its parent, or does not exist"
    inner = feature[~leaf]
    if not ((inner >= 0) & (inner < value.n_features)).all():
        yield "a node splits on a feature that does not exist"


def loss(value: Any) -> Iterator[str]:
    """Accept a loss function: it holds numbers only, checked before it was built."""
    yield from ()


def random_state(value: Any) -> Iterator[str]:
    """Check the position of a Mersenne twister, where it reads its next number."""
    yield from _bits(value.get_state(legacy=False))


def generator(value: Any) -> Iterator[str]:
    """Check the positions in a bit generator's state."""
    yield from _bits(value.bit_generator.state)


def _bits(state: Any) -> Iterator[str]:
    position = state["state"].get("pos", 0)
    if not 0 <= position <= 624:
        yield "its position is out of range"
    if not 0 <= state.get("buffer_pos", 0) <= 4:
        yield "its buffer's position is out of range"


def sparse(value: Any) -> Iterator[str]:
    """Check that a sparse matrix points only at cells that it has."""
    import numpy as np

    rows, columns = value.shape
    if rows < 0 or columns < 0 or value.data.dtype == object:
        yield "it has no shape, or holds objects"
        return
    if value.format == "coo":
        lengths = {len(value.row), len(value.col), len(value.data)}
        if len(lengths) != 1 or not (_within(value.row, rows) and _within(value.col, columns)):
            yield "an entry is outside of the matrix"
        return
    if value.format == "dia":
        if value.data.ndim != 2 or len(value.offsets) != len(value.data):
            yield "its diagonals and offsets do not match"
        return
    height, width = value.blocksize if value.format == "bsr" else (1, 1)
    major, minor = (columns, rows) if value.format == "csc" else (rows // height, columns // width)
    pointers = value.indptr
    if len(pointers) != major + 1 or pointers[0] != 0 or (np.diff(pointers) < 0).any():
        yield "its row pointers are not in order"
    elif pointers[-1] > len(value.indices) or len(value.indices) > len(value.data):
        yield "it points behind its data"
    elif not _within(value.indices, minor):
        yield "an entry is outside of the matrix"


def _within(indices: Any, size: int) -> bool:
    return bool(((indices >= 0) & (indices < size)).all())


_LOSSES = (
    *(f"sklearn._loss._loss.{name}" for name in ("CyLossFunction", "CyHalfMultinomialLoss")),
    "sklearn.linear_model._sgd_fast.LossFunction",
)

NATIVE: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "numpy.random._generator.Generator": generator,
    "numpy.random.mtrand.RandomState": random_state,
    "scipy.sparse._data._data_matrix": sparse,
    "sklearn.tree._tree.Tree": tree,
    **dict.fromkeys(_LOSSES, loss),
}
