"""Directories of other formats, opened as packages: read by the installed flavor that knows them, by name.

A reader returns the manifest that describes the directory as it is. It imports no framework and runs nothing of what
it reads; what it says is parsed and checked like any manifest.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from modelpack.errors import FlavorError
from modelpack.manifest import Manifest

__all__ = ["READERS", "read"]

# File that marks a directory of another format -> (flavor, its reader).
READERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"MLmodel": ("mlflow", "modelpack_flavors._mlflow.reading:manifest")}
)


def read(root: Path) -> bytes | None:
    """Return the bytes of the manifest that describes a directory of another format, or None if it is none.

    Raises:
        FlavorError: the flavor that reads such directories is not installed (``flavor-unknown``).
        PackageError: the directory is not valid in its own format.
    """
    for mark, (flavor, place) in READERS.items():
        if not (root / mark).is_file():
            continue
        module, _, name = place.partition(":")
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise FlavorError(
                f"a directory with {mark} is read by the flavor {flavor}, which is not installed",
                code="flavor-unknown",
                path=mark,
            )
        reader: Callable[[Path], Manifest] = getattr(importlib.import_module(module), name)
        return reader(root).to_bytes()
    return None
