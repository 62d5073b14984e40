"""Writing a model: its bytes as they are, and the files beside it that hold its tensors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelpack.audits import onnx_graph
from modelpack.audits.onnx_graph import Facts
from modelpack.errors import PackageError, SaveError

__all__ = ["ENTRY", "raw_of", "source_of", "write"]

ENTRY = "model.onnx"


class _Beside(Mapping[str, int]):
    """The sizes of the regular files in a directory, looked up when asked for."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def __contains__(self, path: object) -> bool:
        return self._directory is not None and isinstance(path, str) and (self._directory / path).is_file()

    def __getitem__(self, path: str) -> int:
        if self._directory is None or path not in self:
            raise KeyError(path)
        return (self._directory / path).stat().st_size

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def raw_of(model: Any) -> tuple[bytes, Path | None]:
    """Return the bytes of a model, and the directory of the file it came from.

    Raises:
        SaveError: it is no ONNX model (``model-invalid``), or too large without a file (``model-unsupported``).
    """
    if isinstance(model, str | Path):
        path = Path(model)
        if not path.is_file():
            raise SaveError(f"there is no file {path}", code="model-invalid")
        return path.read_bytes(), path.parent
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model), None
    proto = getattr(model, "model_proto", model)
    if not hasattr(proto, "SerializeToString"):
        raise SaveError("not an ONNX model", code="model-invalid", hint="Give a ModelProto, its bytes, or a path.")
    try:
        return proto.SerializeToString(deterministic=True), None
    except Exception as exc:  # protobuf has several classes for a message that is too large
        raise SaveError(
            f"the model cannot be written in one piece: {exc}",
            code="model-unsupported",
            hint="Save it with onnx.save_model(..., save_as_external_data=True) and give the path.",
        ) from exc


def write(raw: bytes, directory: Path, origin: Path | None = None) -> Facts:
    """Audit the model and write it, with its files from ``origin``, into ``directory``.

    Raises:
        SaveError: a reader would refuse it (``model-unsupported``).
    """
    try:
        facts = onnx_graph.inspect(raw, ENTRY, _Beside(origin))
    except PackageError as exc:
        raise SaveError(
            f"no reader would load it: {exc.message}",
            code="model-unsupported",
            hint="If its tensors lie in other files, give the path of the model.",
        ) from exc
    for path in facts.external:
        if path == ENTRY or origin is None:
            raise SaveError(f"a file of tensors is called {path}", code="model-unsupported", hint="Rename it.")
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin / path, directory / path)
    (directory / ENTRY).write_bytes(raw)
    return facts


def source_of(facts: Facts, raw: bytes, directory: Path) -> bytes | Path:
    """Return what a session is made from: the bytes, or the path if there are other files."""
    return directory / ENTRY if facts.external else raw
