"""Making a package of a directory that another tool wrote (docs/flavors/mlflow.md)."""

from __future__ import annotations

import os
from pathlib import Path

from modelpack import atomic
from modelpack.errors import UsageError
from modelpack.package import Package
from modelpack.pathrules import MANIFEST

__all__ = ["import_directory"]


def import_directory(
    directory: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False
) -> Package:
    """Copy the directory's files, verified as they are read, beside a manifest that describes them.

    Nothing of it is imported or run, and no grant is made. The digest is the one that the directory itself has when
    it is opened.

    Raises:
        UsageError: it is a package already (``import-package``).
        PackageError: it is no directory that can be read.
        SaveError: the package cannot be written at ``path``.
    """
    if (Path(directory) / MANIFEST).exists():
        raise UsageError("it is a package already", code="import-package", hint="Copy it as it is.")
    opened = Package.open(directory)
    with atomic.directory(Path(path), overwrite=overwrite) as staging:
        opened.files().copy_to(staging)
        (staging / MANIFEST).write_bytes(opened.manifest.to_bytes())
    return Package.open(path)
