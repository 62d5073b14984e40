"""Paths that cannot stand beside each other are found without holding every directory that they name."""

from __future__ import annotations

import tracemalloc

import pytest

from modelpack import pathrules

TWICE, CASE, INSIDE = (
    "listed twice",
    "path differs from an earlier one only in case",
    "one path is a directory of another",
)
FOLDER = "directory differs from an earlier one only in case"


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b/a", "a.b", "a-"], []),
        (["a", "b", "a", "a"], [(2, TWICE), (3, TWICE)]),
        (["a", "A", "a"], [(1, CASE), (2, TWICE)]),
        (["a/b", "a-", "a"], [(2, INSIDE)]),
        (["A", "a-", "a/b/c", "a/d"], [(2, INSIDE), (3, INSIDE)]),
        (["a", "a", "a.b", "a/b"], [(1, TWICE), (3, INSIDE)]),
        (["a/b/c", "a/B/d", "a/b/e"], [(1, FOLDER), (2, FOLDER)]),
        (["a/x", "a-/x", "A-/y"], [(2, FOLDER)]),
    ],
)
def test_paths_that_clash_are_found(paths: list[str], found: list[tuple[int, str]]) -> None:
    clashes = pathrules.clashes(paths)
    assert [(position, message.removeprefix("the ").removeprefix("a ")) for position, _, message in clashes] == [
        (position, {TWICE: f"path is {TWICE}"}.get(message, message)) for position, message in found
    ]
    assert {code for _, code, message in clashes if TWICE not in message} <= {"path-clash"}


def test_a_short_manifest_with_millions_of_directories_costs_no_more_than_its_text() -> None:
    paths = [f"{number}/{'a/' * 500}x" for number in range(2000)]
    tracemalloc.start()
    assert pathrules.clashes(paths) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * sum(map(len, paths))
