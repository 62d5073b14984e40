"""Which flavor of a package is served: the one asked for, else its checked ONNX twin, else the first that loads."""

from __future__ import annotations

import logging

import modelpack
from modelpack import Model, twins
from modelpack.errors import EnvironmentMismatch, FlavorError, PackageError, UsageError
from modelpack.manifest import FlavorEntry, Manifest
from modelpack.package import Package
from modelpack_server.settings import Source

__all__ = ["load", "twin_of"]

TWIN = "onnx"

log = logging.getLogger("modelpack.server")


def load(package: Package, source: Source) -> Model:
    """Load the flavor to serve; where that is not the first that can be loaded, or not the twin, say so in the log.

    Raises:
        ModelpackError: as ``modelpack.load``.
    """
    if source.flavor is None and twin_of(package.manifest) is not None:
        try:
            model = modelpack.load(package, allow_code=source.allow_code, flavor=TWIN)
        except (EnvironmentMismatch, FlavorError, PackageError, UsageError) as exc:
            if isinstance(exc, modelpack.IntegrityError) or exc.code in ("digest-invalid", "grant-mismatch"):
                raise
            model = modelpack.load(package, allow_code=source.allow_code)
            log.warning(
                "the package's checked %s twin cannot be loaded here, serving flavor %s: %s",
                TWIN,
                model.candidate.name,
                exc,
            )
        else:
            log.info("serving the checked %s twin", TWIN)
        return model
    return modelpack.load(package, allow_code=source.allow_code, flavor=source.flavor)


def twin_of(manifest: Manifest) -> FlavorEntry | None:
    """Return the entry that may be served in place of the first: a twin that was held to its answers closely enough.

    spec/08-flavors.md#twins
    """
    entries = [entry for entry in manifest.flavors if entry.name == TWIN]
    if len(entries) != 1 or manifest.flavors[0] is entries[0]:
        return None
    checked = entries[0].checked
    if checked is None or checked.largest_difference > 1:
        return None
    close = checked.tolerance.rtol <= twins.TOLERANCE.rtol and checked.tolerance.atol <= twins.TOLERANCE.atol
    return entries[0] if close else None
