"""Which flavor of a package is served: the one asked for, else its checked ONNX twin, else the first that loads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import modelpack
from modelpack import Model, twins
from modelpack.errors import EnvironmentMismatch, FlavorError, InputError, ModelpackError, PackageError, UsageError
from modelpack.frame import Frame
from modelpack.manifest import FlavorEntry, Manifest
from modelpack.package import Package
from modelpack.signature import Signature
from modelpack_server.invocation import Scorer
from modelpack_server.settings import Source

__all__ = ["Paired", "choose", "original_of", "pair", "twin_of"]

TWIN = "onnx"

log = logging.getLogger("modelpack.server")


def choose(package: Package, source: Source) -> Model:
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


def original_of(manifest: Manifest, twin: FlavorEntry) -> str:
    """Return the name of the flavor that a twin was held to."""
    against = twin.checked.against if twin.checked else None
    named = (entry.name for entry in manifest.flavors if entry is not twin and against in entry.payloads.values())
    return next(named, manifest.flavors[0].name)


def pair(model: Model, source: Source) -> Scorer:
    """Return what scores: the model, and beside a twin that nobody asked for by name, its original."""
    entry = model.manifest.flavors[model.candidate.index]
    if entry.checked is None or source.flavor is not None:
        return model
    return Paired(model, original_of(model.manifest, entry), source.allow_code)


class Paired:
    """A twin, and its original for what the twin does not offer; that is loaded when it is first asked for."""

    def __init__(self, twin: Model, original: str, allow_code: str | None) -> None:
        self.twin = twin
        self._name = original
        self._allow_code = allow_code
        self._lock = threading.Lock()
        self._original: Model | None = None
        self._failed = False

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self.twin.signature

    def score(self, frame: Frame, params: Mapping[str, Any]) -> Frame:
        """Score coerced data and return the checked answer.

        Raises:
            InputError: the twin does not offer what the params ask for, and the original cannot be loaded here
                (``param-unsupported``).
        """
        try:
            return self.twin.score(frame, params)
        except InputError as exc:
            original = self._loaded() if exc.code == "param-unsupported" else None
            if original is None:
                raise
        return original.score(frame, params)

    @property
    def streams(self) -> bool:
        """Whether the twin can answer piece by piece."""
        return self.twin.streams

    def score_stream(self, frame: Frame, params: Mapping[str, Any]) -> Iterator[Any]:
        """Score coerced data and yield the pieces of the answer."""
        return self.twin.score_stream(frame, params)

    def _loaded(self) -> Model | None:
        with self._lock:
            if self._original is None and not self._failed:
                try:
                    self._original = modelpack.load(self.twin.package, allow_code=self._allow_code, flavor=self._name)
                    log.info("flavor %s answers what the twin does not offer", self._name)
                except ModelpackError as exc:
                    self._failed = True
                    log.warning("flavor %s, which offers what the twin does not, cannot be loaded: %s", self._name, exc)
            return self._original
