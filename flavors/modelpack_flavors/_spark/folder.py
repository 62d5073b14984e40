"""A directory that Spark wrote: read for the audit, and copied into a payload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.audits.spark_ml import Stage, inspect
from modelpack.errors import ModelpackError, SaveError

__all__ = ["Folder", "copy", "entry_of"]

HOME = "sparkml"


@dataclass(frozen=True, slots=True)
class Folder:
    """The files below a directory, as an audit reads them."""

    root: Path

    def paths(self) -> Sequence[str]:
        """Return the paths of all files, sorted."""
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return (self.root / path).read_bytes()


def entry_of(payload: Path) -> tuple[str, Stage]:
    """Return the entry of a payload's directory that holds ``sparkml``, and the model in it.

    Raises:
        SaveError: it holds no model that Spark wrote (``model-invalid``).
    """
    names = sorted(path.name for path in payload.glob(f"{HOME}/metadata/part-*"))
    if not names:
        raise SaveError(
            "there is no Spark ML model in the directory",
            code="model-invalid",
            hint="Give what `model.write().save` wrote; a session on a cluster must write to a disk of this machine.",
        )
    entry = f"{HOME}/metadata/{names[0]}"
    try:
        return entry, inspect(Folder(payload), entry)
    except ModelpackError as exc:
        raise SaveError(f"it would not be loaded: {exc.message}", code="model-invalid") from exc


def copy(source: Path, payload: Path) -> None:
    """Copy the files that hold the model into ``sparkml``: not Spark's marks and checksums."""
    for path in sorted(source.rglob("part-*")):
        if path.is_file():
            target = payload / HOME / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
