"""A package on its way to executors: sent once to each, held to its digest there, loaded once by each Python worker."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import optional
from modelpack.errors import UsageError
from modelpack.model import Model
from modelpack.package import Package
from modelpack.pathrules import MANIFEST
from modelpack_server.handing import Handed

__all__ = ["Shipped", "check_model", "ship"]

# Of the driver: what was sent to which application.
_SENT: set[tuple[str, str]] = set()
_SENDING = threading.Lock()
# As many models a Python worker keeps, those that it used last: it may live as long as the application does.
_KEPT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped(Handed):
    """What an executor is told."""

    @property
    def name(self) -> str:
        """The directory on each executor."""
        return f"modelpack-{self.digest.removeprefix('sha256:')}"

    def model(self) -> Model:
        """Return the model, in a Python worker.

        Raises:
            IntegrityError: what has arrived is not the package that the driver loaded (``package-differs``).
        """
        return _arrived(self)


@functools.lru_cache(maxsize=_KEPT)
def _arrived(shipped: Shipped) -> Model:
    files = optional.require("pyspark", what="Scoring with Spark", extra="spark").SparkFiles
    return shipped.load_from(Path(files.get(shipped.name)))


def check_model(model: Model) -> None:
    """Refuse a model that executors cannot load (``model-driver-only``)."""
    if model.driver_only:
        raise UsageError(
            "the model needs a Spark of its own to score, which executors do not have",
            code="model-driver-only",
            hint="Save it with its twin, the flavor spark_numpy, which needs no JVM; or call its transform yourself.",
        )


def ship(context: Any, model: Model) -> Shipped:
    """Send the package of a loaded model to all executors of an application, those that come later included.

    Raises:
        UsageError: executors cannot load it (``model-driver-only``).
    """
    check_model(model)
    shipped = Shipped.of(model)
    sent = (str(context.applicationId), model.digest)
    with _SENDING:
        if sent not in _SENT:
            # Executors fetch it as long as the application runs.
            folder = Path(tempfile.mkdtemp(prefix="modelpack-spark-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            context.addArchive(f"{_packed(model.package, folder / f'{shipped.name}.zip')}#{shipped.name}")
            _SENT.add(sent)
    return shipped


def _packed(package: Package, target: Path) -> Path:
    """Write the files of a package, and nothing else, into an archive."""
    names = [file.path for file in package.manifest.files]
    if (package.path / MANIFEST).exists():
        names.append(MANIFEST)
    with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
        for name in names:
            archive.write(package.path / name, name)
    return target
