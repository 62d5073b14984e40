"""Writes a model as an exported program that our own audit takes, the same bytes every time."""

from __future__ import annotations

import json
import mmap
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelpack.audits import pt2
from modelpack.audits.pt2_archive import Archive
from modelpack.audits.pt2_expressions import known_guard
from modelpack.audits.pt2_program import Unlisted
from modelpack.errors import PackageError, SaveError, UsageError
from modelpack_flavors._torch.feeding import BATCH, Feed

__all__ = ["export", "names_of", "opened", "shapes", "write"]

ENTRY = "model.pt2"
ALIGNMENT = 64
_TOP = "model"
_FIRST = ("archive_format", "archive_version", "byteorder", ".data/version", "models/model.json")
_LOCAL_HEADER = 30
_EPOCH = (1980, 1, 1, 0, 0, 0)


def export(
    model: Any, feed: Feed, tensors: Sequence[Any], dynamic: Mapping[str, Mapping[int, str]], *, free: bool
) -> Any:
    """Return the exported program of the model; with ``free`` the first dimension is that of a batch of any size.

    ``dynamic`` names other dimensions that are free, by input.

    Raises:
        SaveError: torch cannot export the model (``model-unsupported``).
    """
    import torch

    symbols: dict[str, Any] = {}
    given, parts = [], []
    for tensor, dims in zip(tensors, shapes(feed, tensors, dynamic, free=free), strict=True):
        wanted = {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        parts.append({axis: symbols.setdefault(s, torch.export.Dim(s)) for axis, s in wanted.items()})
        given.append(_enough(tensor, wanted))
    args, kwargs = feed.arguments(given)
    named = dict(zip(feed.names, parts, strict=True))
    form: Any = {"one": tuple(parts), "names": named, "mapping": (named,)}[feed.call]
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(model, args, kwargs, dynamic_shapes=form)
    except Exception as exc:
        raise SaveError(
            f"torch.export cannot write the model: {type(exc).__name__}: {_told(exc)}",
            code="model-unsupported",
            hint="Give its source files with code=. One of a fixed number of rows needs options={'batch': 'fixed'}.",
        ) from exc


def _told(exc: Exception) -> str:
    """Return the lines of an error that say what is wrong."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return " ".join(lines[:1] + [line for line in lines[1:] if line.startswith("- ")][:2])


def shapes(
    feed: Feed, tensors: Sequence[Any], dynamic: Mapping[str, Mapping[int, str]], *, free: bool
) -> list[tuple[int | str, ...]]:
    """Return the shapes of the inputs, with a name for each dimension that is free."""
    rows = tensors[0].shape[0] if tensors and tensors[0].ndim else None
    found = []
    for name, tensor in zip(feed.names, tensors, strict=True):
        dims: list[int | str] = list(tensor.shape)
        if free and dims and dims[0] == rows:
            dims[0] = BATCH
        for axis, symbol in dynamic.get(name, {}).items():
            if axis >= len(dims):
                raise UsageError(
                    f"{name!r} has {len(dims)} dimensions", code="option-invalid", path=f"options.dynamic.{name}"
                )
            dims[axis] = symbol
        found.append(tuple(dims))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch tells people who export by hand."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _enough(tensor: Any, wanted: Mapping[int, str]) -> Any:
    """Return the tensor with at least two of everything that is free: of one, torch takes the size for a constant."""
    for axis in wanted:
        if tensor.shape[axis] == 1:
            tensor = tensor.repeat_interleave(3, dim=axis)
    return tensor.contiguous()


def write(program: Any, path: Path) -> None:
    """Write an exported program at ``path``: no traces, no sample inputs, tensors aligned, no times.

    Raises:
        SaveError: it is not what our audit takes (``model-unsupported``).
    """
    import torch

    raw = path.with_name(f"raw-{path.name}")
    try:
        with _quiet():
            torch.export.save(program, raw)
        with opened(raw) as data:
            _rewrite(Archive(data, path.name), path)
    finally:
        raw.unlink(missing_ok=True)
    try:
        with opened(path) as data:
            pt2.inspect(data, path.name)
    except (Unlisted, PackageError) as exc:
        reason = exc.message if isinstance(exc, PackageError) else str(exc)
        raise SaveError(
            f"the exported program is more than a graph of listed operators: {reason}",
            code="model-unsupported",
            hint="Give its source files with code=, or options={'format': 'torch-pickle'}: class code.",
        ) from exc


@contextmanager
def opened(path: Path) -> Iterator[memoryview]:
    """Give the bytes of a file without reading all of it."""
    # The mapping goes when nothing refers to it; a traceback may hold a part of it for longer than this block.
    with path.open("rb") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _rewrite(archive: Archive, path: Path) -> None:
    names = [name for name in archive.names if not name.startswith(("data/sample_inputs/", ".data/serialization_id"))]
    configs = [name for name in names if name.endswith("_config.json")]
    blobs = [name for name in names if name not in configs and name not in _FIRST]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for name in [*(name for name in _FIRST if name in names), *configs]:
            content = bytes(archive.read(name))
            _member(out, name, _clean(content) if name == "models/model.json" else content)
        # torch.export.load wants the member, empty or not.
        _member(out, "data/sample_inputs/model.pt", b"")
        for name in blobs:
            _member(out, name, archive.read(name))


def _member(out: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"{_TOP}/{name}", _EPOCH)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    assert out.fp is not None
    start = out.fp.tell() + _LOCAL_HEADER + len(info.filename)
    padding = -start % ALIGNMENT
    if content and padding:
        # An extra field has a head of four bytes.
        size = padding - 4 if padding >= 4 else padding + ALIGNMENT - 4
        info.extra = b"FB" + size.to_bytes(2, "little") + b"Z" * size
    out.writestr(info, content)


def _clean(raw: bytes) -> bytes:
    """Return the program without what says where and how it was written."""
    root = json.loads(raw)
    for node in root["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    root["guards_code"] = [guard for guard in root.get("guards_code", []) if known_guard(guard)]
    return json.dumps(root, separators=(",", ":")).encode()


def names_of(tree: str | None, count: int) -> list[str] | None:
    """Return the names of a program's outputs as the text of its tree says; None for one bare tensor."""
    try:
        leaves = list(_leaves(json.loads(tree or "")[1], ""))
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        leaves = []
    if leaves == [""] and count == 1:
        return None
    if len(leaves) != count or len(set(leaves)) != count:
        return [f"output_{i}" for i in range(count)]
    return leaves


def _leaves(node: Mapping[str, Any], name: str) -> Iterator[str]:
    children = node["children_spec"]
    if node["type"] is None:
        yield name
        return
    context = json.loads(node["context"]) if node["context"] else None
    keys = context if isinstance(context, list) and len(context) == len(children) else range(len(children))
    for key, child in zip(keys, children, strict=True):
        top = f"output_{key}" if isinstance(key, int) else str(key)
        yield from _leaves(child, f"{name}.{key}" if name else top)
