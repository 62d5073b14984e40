"""What a run is made of, as it is written down: two runs with the same record give the same rows."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelpack.errors import InputError
from modelpack.model import Model
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.options import Options
from modelpack_server.batch.plan import Plan

__all__ = ["Record", "describe", "difference", "digest", "look", "manifest", "now", "unchanged"]

Record = Mapping[str, Any]


def describe(model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> Record:
    """Return the record of a run, as JSON data."""
    return {
        "package": model.digest,
        "flavor": model.candidate.name,
        "params": json.loads(json.dumps(params, default=repr, sort_keys=True)),
        "keep": None if options.keep is None else list(options.keep),
        "where": options.where,
        "on_error": str(options.on_error) if options.on_error else None,
        "inputs": [look(source) for source in plan.sources],
        "outputs": [f"{part.stem}{'' if plan.table else part.kind.suffix}" for part in plan.parts],
    }


def look(source: Source) -> Record:
    """Return what tells an input from another one, or from itself when it has changed, however its path is written."""
    if source.piece is not None:
        whole = look(replace(source, piece=None))
        return {**whole, "row_groups": [source.piece.first, source.piece.last]}
    if source.table is not None:
        root, path = source.table.root, source.table.add.path if source.table.add else None
        return {
            "table": os.path.realpath(root) if isinstance(root, Path) else root,
            "id": source.table.shape.id,
            "version": source.table.version,
            "file": path,
            "size": source.size,
        }
    if source.remote is not None:
        found = source.remote.now()
        return {"path": found.url, "size": found.size, "tag": found.tag}
    if source.path is None or source.size is None:
        # What comes through a pipe cannot be seen again.
        return {"path": source.name, "stream": secrets.token_hex(8)}
    stat = source.path.stat()
    return {"path": os.path.realpath(source.path), "size": stat.st_size, "modified": stat.st_mtime_ns}


def digest(record: Record) -> str:
    """Return the SHA-256 of a record, in hex, by which the same run is known when it is done.

    Where the rejects went is no part of it: the rows that were written are the same.
    """
    record = {key: value for key, value in record.items() if key != "on_error"}
    return hashlib.sha256(json.dumps(record, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def manifest(run: Record, model: Model, began: str, files: Sequence[Record]) -> Record:
    """Return what a folder says of the run that made it; ``files`` tell of each file."""
    return {
        "run": digest(run),
        "package": {"name": model.manifest.name, "version": model.manifest.version, "digest": model.digest},
        "flavor": run["flavor"],
        "params": run["params"],
        "where": run["where"],
        "rows": sum(file["rows"] for file in files),
        "rejected": sum(file["rejected"] for file in files),
        "rejects": run["on_error"],
        "began": began,
        "ended": now(),
        "seconds": round(sum(file["seconds"] for file in files), 3),
        "inputs": run["inputs"],
        "files": files,
    }


def now() -> str:
    """Return the time as manifests have it."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def unchanged(sources: Sequence[Source], record: Record) -> None:
    """Raise InputError (``input-changed``) if an input is not what the record says, now that it has been read."""
    known = [entry for entry in record["inputs"] if "stream" not in entry]
    for source in sources:
        if source.size is not None and look(source) not in known:
            raise InputError(
                "changed while it was scored",
                code="input-changed",
                path=source.name,
                hint="Run again when nobody writes to it.",
            )


def difference(old: Record, new: Record) -> str | None:
    """Return in words what keeps a run from going on with what another one has made; None if nothing does.

    Files made without rejects lack those of their rows that an earlier run refused, so whether there are any counts.
    """
    if old.get("package") != new["package"]:
        return f"the package is another one ({old.get('package')} before, {new['package']} now)"
    if old.get("where") != new["where"]:
        return "--where is not the same"
    known = {name(entry): entry for entry in old.get("inputs", ())}
    for entry in new["inputs"]:
        before = known.pop(name(entry), None)
        if before is None:
            return f"the input {name(entry)} is new"
        if before != entry:
            return f"the input {name(entry)} has changed"
    if known:
        return f"the input {next(iter(known))} is gone"
    if (old.get("on_error") is None) != (new["on_error"] is None):
        return "--on-error is given" if new["on_error"] else "--on-error is not given"
    words = {"outputs": "the output's files", "inputs": "the order of inputs"}
    for key, value in new.items():
        if key != "on_error" and old.get(key) != value:
            return f"{words.get(key, key)} is not the same"
    return None


def name(entry: Record) -> str:
    """Return what an input is called."""
    path, told = str(entry.get("path")), []
    if "table" in entry:
        path, told = f"{entry['table']}/{entry['file'] or ''}", [f"version {entry['version']}"]
    if "row_groups" in entry:
        told.append("row groups {} to {}".format(*entry["row_groups"]))
    return f"{path} ({', '.join(told)})" if told else path
