"""Audit of exported torch programs (``.pt2``): listed operators over raw tensors, and nothing else.

A file in which everything is accounted for is of class ``graph``. The loader of that class runs the steps that are read
here, on the bytes that are looked at here; no other reader sees the file. Anything else that torch can put into such a
file makes it class ``code``, with the reasons named. A file that contradicts itself is refused whatever is granted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelpack.audits import Audit
from modelpack.audits import pt2_schema as schema
from modelpack.audits.pt2_archive import Archive
from modelpack.audits.pt2_expressions import known_guard
from modelpack.audits.pt2_program import Program, Unlisted, read
from modelpack.audits.safetensors_file import Files, strict_json

__all__ = ["Contents", "Weight", "audit", "inspect"]

MAX_JSON = 512 * 2**20
MAX_RANK = 64
_MODEL = re.compile(r"models/([A-Za-z0-9_.-]+)\.json\Z")
_BLOB = re.compile(r"data/(weights/weight|constants/tensor)_\d{1,9}\Z")
# Small members of fixed content; what may be in them.
_PLAIN = {
    "archive_format": re.compile(rb"pt2\s*\Z"),
    "archive_version": re.compile(rb"\d{1,4}\s*\Z"),
    "byteorder": re.compile(rb"little\Z"),
    "version": re.compile(rb"\d{1,4}\s*\Z"),
    ".data/version": re.compile(rb"\d{1,4}\s*\Z"),
    ".data/serialization_id": re.compile(rb"\d{1,64}\Z"),
    ".format_version": re.compile(rb"\d{1,4}\s*\Z"),
    ".storage_alignment": re.compile(rb"\d{1,4}\s*\Z"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A tensor in the archive: its bytes, and how they are seen (sizes, strides and offset in elements)."""

    data: memoryview
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """All that a program of class ``graph`` is: steps, weights, constants; ``tree`` describes its answer's nesting."""

    program: Program
    weights: Mapping[str, Weight]
    constants: Mapping[str, Weight]
    torch_version: str
    tree: str | None


def audit(files: Files, entry: str | None) -> Audit:
    """Audit the program ``entry``.

    Raises:
        PackageError: it is no such file, or contradicts itself (``payload-invalid``).
    """
    try:
        found = inspect(files.view(entry or ""), entry or "")
    except Unlisted as exc:
        return Audit(trust="code", reasons=(f"a torch program with more than listed operators: {exc}",))
    return Audit(trust="graph", types=found.program.targets)


def inspect(data: bytes | memoryview, entry: str) -> Contents:
    """Return what is in a program whose every part is accounted for.

    Raises:
        Unlisted: something in it is not listed; it is of class ``code``.
        PackageError: it is no such file, or contradicts itself (``payload-invalid``).
    """
    archive = Archive(data, entry)
    model = _members(archive)
    root = _json(archive, f"models/{model}.json")
    _version(root, archive)
    guards = root.get("guards_code", [])
    if not isinstance(guards, list) or not all(known_guard(guard) for guard in guards):
        raise Unlisted("a guard is no condition on sizes")
    program = read(root, archive.refuse)
    weights = _tensors(archive, "weights", model)
    constants = _tensors(archive, "constants", model)
    for one in program.inputs:
        if one.kind in ("weight", "constant") and one.source not in (weights if one.kind == "weight" else constants):
            archive.refuse("a tensor of the program is not in the file")
    version = root.get("torch_version")
    return Contents(
        program=program,
        weights=weights,
        constants=constants,
        torch_version=version if isinstance(version, str) else "",
        tree=_tree(root),
    )


def _members(archive: Archive) -> str:
    """Return the name of the one model; every member must have a known name."""
    models = [found[1] for name in archive.names if (found := _MODEL.match(name))]
    if not models:
        raise Unlisted("it is of an older or another layout")
    if len(models) > 1:
        raise Unlisted("it holds several programs")
    model = models[0]
    known = {f"data/{kind}/{model}_{kind}_config.json" for kind in ("weights", "constants")}
    # Sample inputs are there for people who export again; nobody reads them here.
    known |= {f"models/{model}.json", f"data/sample_inputs/{model}.pt"}
    for name in archive.names:
        if name in _PLAIN:
            content = archive.read(name)
            if len(content) > 64 or not _PLAIN[name].match(bytes(content)):
                raise Unlisted(f"its member {name!r} is not as usual")
        elif name not in known and not _BLOB.match(name):
            raise Unlisted(f"it has a member {name[:100]!r}")
    if "byteorder" not in archive.names or "archive_format" not in archive.names:
        raise Unlisted("it does not say its byte order and format")
    return model


def _json(archive: Archive, name: str) -> dict[str, Any]:
    raw = archive.read(name)
    if len(raw) > MAX_JSON:
        archive.refuse(f"{name} is larger than is taken")
    return strict_json(bytes(raw), name, archive.entry)


def _version(root: Mapping[str, Any], archive: Archive) -> None:
    version = root.get("schema_version")
    if not isinstance(version, dict):
        archive.refuse("it has no schema version")
    major, minor = version.get("major"), version.get("minor")
    if major != schema.VERSIONS[0] or type(minor) is not int or not 0 <= minor <= schema.VERSIONS[1]:
        raise Unlisted("its schema version is not one that is known")


def _tensors(archive: Archive, kind: str, model: str) -> dict[str, Weight]:
    name = f"data/{kind}/{model}_{kind}_config.json"
    config = _json(archive, name).get("config") if name in archive.names else {}
    if not isinstance(config, dict):
        archive.refuse(f"{name} has no config")
    return {key: _tensor(archive, kind, value) for key, value in config.items()}


def _tensor(archive: Archive, kind: str, entry: Any) -> Weight:
    if not isinstance(entry, dict) or not isinstance(entry.get("path_name"), str):
        archive.refuse("a tensor has no place")
    meta = entry.get("tensor_meta")
    if entry.get("use_pickle") is not False or not isinstance(meta, dict):
        raise Unlisted("a tensor is not stored as plain bytes")
    place = f"data/{kind}/{entry['path_name']}"
    if not _BLOB.match(place):
        raise Unlisted("a tensor is stored as something else")
    dtype = schema.DTYPES.get(meta["dtype"]) if type(meta.get("dtype")) is int else None
    if dtype is None or meta.get("layout") != schema.STRIDED:
        raise Unlisted("a tensor is of an unknown type or layout")
    shape, strides = _sizes(meta.get("sizes"), archive), _sizes(meta.get("strides"), archive)
    (offset,) = _sizes([meta.get("storage_offset")], archive)
    data = archive.read(place)
    if len(shape) != len(strides) or len(shape) > MAX_RANK:
        archive.refuse("a tensor has another number of strides than sizes")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    width = schema.WIDTHS[dtype]
    if len(data) % width or (math.prod(shape) and (last + 1) * width > len(data)):
        archive.refuse("a tensor is larger than its bytes")
    return Weight(data=data, dtype=dtype, shape=shape, strides=strides, offset=offset)


def _sizes(value: Any, archive: Archive) -> tuple[int, ...]:
    if not isinstance(value, list):
        archive.refuse("sizes of a tensor are no list")
    found = []
    for one in value:
        size = one.get("as_int") if isinstance(one, dict) and len(one) == 1 else None
        if type(size) is not int or not 0 <= size < 2**47:
            archive.refuse("a size of a tensor is none")
        found.append(size)
    return tuple(found)


def _tree(root: Mapping[str, Any]) -> str | None:
    """Return the text that describes how the answer is nested, if the file has one."""
    try:
        text = root["graph_module"]["module_call_graph"][0]["signature"]["out_spec"]
    except (KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
