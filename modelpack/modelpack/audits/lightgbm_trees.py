"""The trees of a LightGBM model: lines of numbers, as many as the tree says, each pointing to what exists."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

__all__ = ["Trees"]

Array = np.ndarray[Any, Any]

# LightGBM walks down a tree by recursion when it loads one.
MAX_DEPTH = 4096

_INNER = ("split_feature", "decision_type", "left_child", "right_child")
_LEAVES = ("leaf_value", "leaf_weight", "leaf_count")
_STATISTICS = ("split_gain", "internal_value", "internal_weight", "internal_count")
_ALWAYS = ("num_leaves", "num_cat", "threshold", *_INNER, *_LEAVES, *_STATISTICS, "is_linear", "shrinkage")
_CATEGORIES = ("cat_boundaries", "cat_threshold")
_LINEAR = ("leaf_const", "num_features", "leaf_features", "leaf_coeff")

_NUMBER = rb"[-+]?(?:[0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?|inf|nan)"
_INTEGERS = re.compile(rb"-?[0-9]{1,10}(?: -?[0-9]{1,10})*\Z")
_NUMBERS = re.compile(rb"%b(?: %b)*\Z" % (_NUMBER, _NUMBER))
_CATEGORICAL, _MISSING, _KNOWN = 1, 12, 15
_NONE = np.empty(0)


class Trees:
    """Checks trees one by one; ``refuse`` is called with what is wrong."""

    def __init__(self, features: int, refuse: Callable[[str], NoReturn]) -> None:
        self.features, self.refuse = features, refuse

    def check(self, block: bytes, place: int) -> None:
        """Check the text of the tree with this number."""
        lines = self._lines(block, place)
        leaves = self._count(lines["num_leaves"])
        categories = self._count(lines["num_cat"])
        if leaves < 1:
            self.refuse("a tree has no leaves")
        inner = {name: self._integers(lines[name], leaves - 1) for name in _INNER}
        for name in _STATISTICS:
            self._numbers(lines[name], leaves - 1)
        self._numbers(lines["leaf_value"], leaves)
        for name in ("leaf_weight", "leaf_count"):
            # A tree that is one leaf has them or not, by version.
            if lines[name] or leaves > 1:
                self._numbers(lines[name], leaves)
        self._numbers(lines["shrinkage"], 1)
        self._shape(inner["left_child"], inner["right_child"], leaves)
        self._splits(inner)
        self._categories(lines, inner, categories)
        self._linear(lines, leaves)

    def _lines(self, block: bytes, place: int) -> dict[str, bytes]:
        head, *rest = block.split(b"\n")
        if head != b"Tree=%d" % place or rest[-3:] != [b"", b"", b""]:
            self.refuse("a tree is not where the header says")
        found: dict[str, bytes] = {}
        for line in rest[:-3]:
            key, _, value = line.partition(b"=")
            found[key.decode("latin-1")] = value
        if len(found) != len(rest) - 3:
            self.refuse("a tree has a line twice")
        wanted = set(_ALWAYS)
        wanted |= set(_CATEGORIES) if found.get("num_cat") != b"0" else set()
        wanted |= set(_LINEAR) if found.get("is_linear") == b"1" else set()
        if set(found) != wanted or found["is_linear"] not in (b"0", b"1"):
            self.refuse("a tree has other lines than it should")
        return found

    def _count(self, text: bytes) -> int:
        if not re.fullmatch(rb"[0-9]{1,9}", text):
            self.refuse("a tree's size is not a number")
        return int(text)

    def _numbers(self, text: bytes, length: int) -> None:
        """Check that a line holds exactly so many numbers."""
        if text and not _NUMBERS.match(text):
            self.refuse("a tree has a line that is not of numbers")
        if (text.count(b" ") + 1 if text else 0) != length:
            self.refuse("a tree has another number of values than of leaves")

    def _integers(self, text: bytes, length: int) -> Array:
        """Return the integers in a line, exactly so many."""
        if text and not _INTEGERS.match(text):
            self.refuse("a tree has a line that is not of numbers")
        found = np.fromstring(text, dtype=np.int64, sep=" ")
        if len(found) != length:
            self.refuse("a tree has another number of values than of leaves")
        return found

    def _normal(self, text: bytes, length: int) -> None:
        """Check numbers that are to be normal doubles, as written: zero, or within the range of full precision."""
        self._numbers(text, length)
        for word in text.split():
            value = float(word)
            if math.isinf(value) and not word.endswith(b"inf"):
                self.refuse("a leaf computes with a number that is too large")
            if abs(value) < sys.float_info.min and word.strip(b"+-0."):
                self.refuse("a leaf computes with a number that is too small")

    def _shape(self, left: Array, right: Array, leaves: int) -> None:
        """Check that the nodes are one tree: each node and each leaf has one parent, which comes before it."""
        if leaves == 1:
            return
        children = np.concatenate([left, right])
        parents = np.tile(np.arange(leaves - 1), 2)
        inner = children >= 0
        if not ((children[inner] > parents[inner]) & (children[inner] < leaves - 1)).all():
            self.refuse("a child does not come after its parent, or does not exist")
        if not np.array_equal(np.sort(children[inner]), np.arange(1, leaves - 1)):
            self.refuse("a node has not one parent")
        if not np.array_equal(np.sort(~children[~inner]), np.arange(leaves)):
            self.refuse("a leaf has not one parent")
        if leaves > MAX_DEPTH:
            self._depth(left, right)

    def _depth(self, left: Array, right: Array) -> None:
        level, depth = np.zeros(1, dtype=np.int64), 0
        while len(level):
            depth += 1
            if depth > MAX_DEPTH:
                self.refuse(f"a tree is deeper than {MAX_DEPTH}")
            below = np.concatenate([left[level], right[level]])
            level = below[below >= 0]

    def _splits(self, inner: Mapping[str, Array]) -> None:
        feature, kind = inner["split_feature"], inner["decision_type"]
        if len(feature) and not (feature.min() >= 0 and feature.max() < self.features):
            self.refuse("a node splits on a feature that does not exist")
        if ((kind & ~_KNOWN) != 0).any() or ((kind & _MISSING) == _MISSING).any():
            self.refuse("a node splits in an unknown way")

    def _categories(self, lines: Mapping[str, bytes], inner: Mapping[str, Array], count: int) -> None:
        by_category = (inner["decision_type"] & _CATEGORICAL) != 0
        self._numbers(lines["threshold"], len(by_category))
        places = np.fromstring(lines["threshold"], sep=" ")[by_category] if by_category.any() else _NONE
        if not np.array_equal(np.sort(places), np.arange(count)):
            self.refuse("a tree has other sets of categories than nodes that split by category")
        if not count:
            return
        starts = self._integers(lines["cat_boundaries"], count + 1)
        if starts[0] != 0 or (starts[1:] <= starts[:-1]).any() or starts[-1] > len(lines["cat_threshold"]):
            self.refuse("a tree's sets of categories do not follow each other")
        words = self._integers(lines["cat_threshold"], int(starts[-1]))
        if words.min() < 0 or words.max() >= 2**32:
            self.refuse("a tree's set of categories is not one of bits")

    def _linear(self, lines: Mapping[str, bytes], leaves: int) -> None:
        if lines["is_linear"] == b"0":
            return
        self._normal(lines["leaf_const"], leaves)
        counts = self._integers(lines["num_features"], leaves)
        if counts.min() < 0 or counts.sum() > len(lines["leaf_features"]):
            self.refuse("a leaf has more features than there are")
        total = int(counts.sum())
        features = self._integers(_joined(lines["leaf_features"]), total)
        self._normal(_joined(lines["leaf_coeff"]), total)
        if total and not (features.min() >= 0 and features.max() < self.features):
            self.refuse("a leaf computes with a feature that does not exist")


def _joined(text: bytes) -> bytes:
    """Return the numbers of all leaves with one space between them; a leaf without any leaves more."""
    return b" ".join(part for part in text.split(b" ") if part)
