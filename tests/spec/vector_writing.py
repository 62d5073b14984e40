"""What all conformance vectors are written with: manifests, cases, archives; nothing of modelpack, on purpose."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"


def sha256(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    roles = {"payloads": "payload", "code": "code", "examples": "example", "environment": "environment"}
    return [
        {"path": path, "size": len(raw), "digest": sha256(raw), "role": roles.get(path.split("/")[0], "other")}
        for path, raw in sorted(files.items(), key=lambda item: item[0].encode("utf-8", "surrogatepass"))
    ]


def content_digest(listed: list[dict[str, Any]]) -> str:
    lines = sorted((e["path"].encode("utf-8", "surrogatepass"), e["digest"][7:].encode()) for e in listed)
    return sha256(b"".join(digest + b"  " + path + b"\n" for path, digest in lines))


def manifest(files: dict[str, bytes] | None = None, /, **fields: Any) -> dict[str, Any]:
    """A good manifest over ``files``; ``fields`` replace its properties, None removes one."""
    listed = fields.get("files") or entries(files or {})
    out: dict[str, Any] = {
        "modelpack": "1.0",
        "name": "vector",
        "version": "1",
        "flavors": [{"name": "python"}],
        "files": listed,
    }
    try:
        out["content_digest"] = content_digest(listed)
    except (KeyError, TypeError):
        out["content_digest"] = sha256(b"")
    for key, value in fields.items():
        if value is None:
            del out[key]
        else:
            out[key] = value
    order = ["modelpack", "requires", "name", "version", "created", "producer", "description", "license", "authors"]
    order += ["task", "tags", "signature", "payloads", "flavors", "examples", "environment", "hardware"]
    order += ["provenance", "metrics", "extensions", "files", "content_digest"]
    return dict(sorted(out.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def dump(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def write(kind: str, case: dict[str, Any], raw: bytes | None, files: dict[str, bytes]) -> None:
    folder = VECTORS / kind / case["id"]
    if folder.exists():
        return
    for path, content in files.items():
        place = folder / "pkg" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    folder.mkdir(parents=True, exist_ok=True)
    if raw is not None:
        (folder / "pkg").mkdir(exist_ok=True)
        (folder / "pkg" / "modelpack.json").write_bytes(raw)
    (folder / "case.json").write_bytes(dump(case))


def accept(
    id_: str,
    spec: str,
    description: str,
    value: dict[str, Any] | bytes,
    files: dict[str, bytes] | None = None,
    *,
    build: list[dict[str, Any]] | None = None,
    schema: str = "accept",
    digest: str | None = None,
) -> None:
    raw = value if isinstance(value, bytes) else dump(value)
    case: dict[str, Any] = {"id": id_, "spec": spec, "description": description, "expect": "accept"}
    case |= {"schema": schema, "digest": digest or sha256(raw)}
    if build:
        case["build"] = build
    write("valid", case, None if digest else raw, files or {})


def reject(
    id_: str,
    spec: str,
    description: str,
    value: dict[str, Any] | bytes | None,
    where: tuple[str, str, str],
    files: dict[str, bytes] | None = None,
    *,
    build: list[dict[str, Any]] | None = None,
    schema: str = "reject",
) -> None:
    raw = value if value is None or isinstance(value, bytes) else dump(value)
    stage, code, path = where
    case: dict[str, Any] = {"id": id_, "spec": spec, "description": description, "expect": "reject"}
    case |= {"stage": stage, "code": code, "path": path, "schema": schema}
    if build:
        case["build"] = build
    write("invalid", case, raw, files or {})


def archive(*members: tuple[str, bytes]) -> bytes:
    """A zip of stored members, always the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as opened:
        for name, raw in members:
            opened.writestr(zipfile.ZipInfo(name), raw)
    return out.getvalue()


def skops(*members: tuple[str, bytes], **root: Any) -> bytes:
    """A zip as skops writes it: ``schema.json`` and members, always the same bytes."""
    schema = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": []}
    schema |= {"protocol": 2, "_skops_version": "0.16.0"} | root
    schema = {key: value for key, value in schema.items() if value is not ...}
    return archive(("schema.json", dump(schema)), *members)
