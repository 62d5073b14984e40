"""Other formats: their directories opened as packages, and their documents written beside a manifest, by name.

A reader returns the manifest that describes the directory as it is. It imports no framework and runs nothing of what
it reads; what it says is parsed and checked like any manifest. A writer is given a package that is being written and
its manifest, adds files, and says which (spec/08-flavors.md#foreign-documents).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelpack.errors import FlavorError
from modelpack.manifest import Manifest

__all__ = ["READERS", "WRITERS", "read", "write"]

# File that marks a directory of another format -> (flavor, its reader).
READERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"MLmodel": ("mlflow", "modelpack_flavors._mlflow.reading:manifest")}
)
# Name in ``also=`` -> what writes the documents of that format.
WRITERS: Mapping[str, str] = MappingProxyType({"mlflow": "modelpack_flavors._mlflow.writing:write"})


def read(root: Path) -> bytes | None:
    """Return the bytes of the manifest that describes a directory of another format, or None if it is none.

    Raises:
        FlavorError: the flavor that reads such directories is not installed (``flavor-unknown``).
        PackageError: the directory is not valid in its own format.
    """
    for mark, (flavor, place) in READERS.items():
        if not (root / mark).is_file():
            continue
        reader: Callable[[Path], Manifest] = _found(place, flavor, f"a directory with {mark} is read", mark)
        return reader(root).to_bytes()
    return None


def write(name: str, root: Path, manifest: Manifest) -> Sequence[str]:
    """Write the documents of a format, one of WRITERS, into the package being written; return their paths.

    Raises:
        FlavorError: the flavor that writes them is not installed (``flavor-unknown``).
        UsageError: the format cannot hold what the package is (``also-unsupported``).
    """
    writer: Callable[[Path, Manifest], Sequence[str]] = _found(
        WRITERS[name], name, "such documents are written", "also"
    )
    return writer(root, manifest)


def _found(place: str, flavor: str, what: str, path: str) -> Any:
    module, _, name = place.partition(":")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise FlavorError(f"{what} by the flavor {flavor}, which is not installed", code="flavor-unknown", path=path)
    return getattr(importlib.import_module(module), name)
