"""Loads a package and tests it while nothing can be imported but what was captured; run by test_matrix.py.

``python matrix_worker.py PACKAGE NAME...`` prints the distributions whose modules were imported, one a line.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class Only:
    """Finds nothing, and refuses modules that only distributions provide which are not allowed."""

    def __init__(self, provided: Mapping[str, Sequence[str]], allowed: set[str]) -> None:
        self._provided, self._allowed = provided, allowed

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        owners = {canonicalize_name(owner) for owner in self._provided.get(name.partition(".")[0], ())}
        if owners and not owners & self._allowed:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not captured", name=name)


def runtime(name: str, seen: set[str]) -> set[str]:
    """Return what modelpack needs by itself, with what that needs."""
    if name not in seen:
        seen.add(name)
        for text in importlib.metadata.requires(name) or []:
            one = Requirement(text)
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                runtime(canonicalize_name(one.name), seen)
    return seen


def main(package: str, *captured: str) -> None:
    provided = importlib.metadata.packages_distributions()
    sys.meta_path.insert(0, Only(provided, {*captured, *runtime("modelpack", set())}))
    import modelpack
    from modelpack import examples

    model = modelpack.load(package)
    for example in model.manifest.examples:
        outcome = examples.check(model, example)
        assert outcome.rows and outcome.passed, outcome.differences
    tops = {name.partition(".")[0] for name in sys.modules}
    print("\n".join(sorted({canonicalize_name(owner) for top in tops for owner in provided.get(top, ())})))


if __name__ == "__main__":
    main(*sys.argv[1:])
