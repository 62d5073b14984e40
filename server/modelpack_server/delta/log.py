"""The log of a Delta table, one commit at a time: which files it added, and what else it changed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import orjson
import pyarrow as pa

from modelpack.errors import InputError
from modelpack_server.delta.naming import PLAIN, Naming, naming
from modelpack_server.delta.position import UNSEALED, fingerprint
from modelpack_server.delta.storage import Look, Root, inside, storage
from modelpack_server.delta.tables import LOG, require

__all__ = ["Add", "Commit", "Shape", "check_features", "data_path", "first_version", "look",
           "parse_shape", "read_commit", "seal", "versions"]  # fmt: skip

# What we read rightly. Deletion vectors are looked at file by file.
FEATURES = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck", "deletionVectors", "columnMapping",
                      "typeWidening", "typeWidening-preview"})  # fmt: skip
_COMMIT = re.compile(r"^(\d{20})\.json$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What a table is: its id, its columns, and how its files are laid out."""

    id: str
    schema: pa.Schema
    partitions: Sequence[str] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    naming: Naming = PLAIN

    def inner(self, name: str) -> str | None:
        """Return what a column is called in the files, by which it stays the same column; None: there is none."""
        return self.naming.physical.get(name, name) if name in self.schema.names else None

    def named_by(self, later: Shape) -> Shape:
        """Return the layout of files from then, with the names that columns were given later beside their own."""
        if self is later or (self.naming.plain and later.naming.plain):
            return self
        inner = {name: shape.inner(name) or name for shape in (later, self) for name in shape.schema.names}
        split = {inner[name] for name in self.partitions}
        ids = None if self.naming.ids is None else {**(later.naming.ids or {}), **self.naming.ids}
        partitions = [name for name, known in inner.items() if known in split]
        return replace(self, partitions=partitions, naming=Naming(physical=inner, ids=ids))


@dataclass(frozen=True, kw_only=True, slots=True)
class Add:
    """One data file. ``alive`` says which of its rows still are.

    ``rows`` and ``size`` (in bytes) are as the log tells them; None: it does not.

    ``change``: the file is of the change data feed, and holds rows as they were and as they became. ``old``: its rows
    are those that are no more, or not like that any more; else those that are.

    ``layout``: the table as it was when the file came (None: as whoever reads it knows the table).
    """

    path: str
    rows: int | None
    partition: Mapping[str, Any]
    alive: np.ndarray[Any, Any] | None = None
    has_vector: bool = False
    change: bool = False
    old: bool = False
    size: int | None = None
    layout: Shape | None = None

    def laid_out(self, layout: Shape) -> Add:
        """Return the file of a commit, which has partition values by inner names, with its layout."""
        return replace(self, partition=layout.naming.partition(self.partition), layout=layout)

    def seen_later(self, shape: Shape, later: Shape) -> Add:
        """Return the file of a snapshot, which has partition values by names, with the names that came later."""
        values = {shape.inner(name) or name: value for name, value in self.partition.items()}
        return replace(self, partition=values).laid_out(shape.named_by(later))


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """What one version changed.

    ``removed``: paths of files whose rows were deleted or rewritten. ``changes``: files of the change data feed; where
    there are any, they tell all that changed. ``transactions``: where applications were with it. ``operation`` and its
    ``parameters``: what it says that it did. ``seal``: a fingerprint of all of it.
    """

    version: int
    adds: Sequence[Add]
    removed: Sequence[str]
    changes: Sequence[Add]
    shape: Shape | None
    transactions: Mapping[str, int] = field(default_factory=dict)
    operation: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seal: int = UNSEALED

    def laid_out(self, layout: Shape) -> Commit:
        """Return the commit with files that are of this layout."""
        adds, changes = ([add.laid_out(layout) for add in some] for some in (self.adds, self.changes))
        return replace(self, adds=adds, changes=changes)


def _commit(version: int) -> str:
    return f"{LOG}/{version:020d}.json"


def first_version(root: Root, least: int) -> int | None:
    """Return the first version from ``least`` on whose commit is there."""
    return min((version for version in versions(root) if version >= least), default=None)


def versions(root: Root) -> list[int]:
    """Return the versions whose commits are there, in no order."""
    return [int(match[1]) for name in storage(root).names(LOG) if (match := _COMMIT.match(name))]


def read_commit(root: Root, version: int) -> Commit | None:
    """Return what a version changed; None while it is not there.

    Raises:
        InputError: the commit cannot be read (``table-unreadable``), or needs more than we can (``table-unsupported``).
    """
    path = inside(root, _commit(version))
    try:
        raw = storage(root).read(_commit(version))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InputError("cannot be read", code="table-unreadable", path=str(path)) from exc
    if not raw.strip():
        # What is to come would be missed.
        hint = 'If it is being copied, start again when it is whole; if it changed nothing, make it {"commitInfo":{}}.'
        raise InputError("is empty", code="table-unreadable", path=str(path), hint=hint)
    try:
        return replace(_parsed(version, raw, path), seal=fingerprint(raw))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InputError("is no commit of a Delta table", code="table-unreadable", path=str(path)) from exc


def seal(root: Root, version: int) -> int:
    """Return the fingerprint of a commit (:data:`UNSEALED`: it is not there)."""
    try:
        return fingerprint(storage(root).read(_commit(version)))
    except FileNotFoundError:
        return UNSEALED


def _parsed(version: int, raw: bytes, path: Root) -> Commit:
    adds: list[Add] = []
    removed: list[str] = []
    changes: list[Add] = []
    shape: Shape | None = None
    transactions: dict[str, int] = {}
    info: Mapping[str, Any] = {}
    for action in (orjson.loads(line) for line in raw.splitlines() if line.strip()):
        for kind, value in action.items():
            match kind:
                case _ if value is None:
                    pass  # some write all kinds of actions in each line, and null for what it is not
                case "add" if value.get("dataChange"):
                    adds.append(_add(value, path))
                case "remove" if value.get("dataChange"):
                    removed.append(data_path(value["path"], path))
                case "cdc":
                    changes.append(replace(_add(value, path), change=True))
                case "metaData":
                    shape = parse_shape(value, path)
                case "txn":
                    transactions[value["appId"]] = int(value["version"])
                case "commitInfo":
                    info = value
                case "protocol":
                    check_features(value.get("readerFeatures") or (), path)
    return Commit(version=version, adds=adds, removed=removed, changes=changes, shape=shape, transactions=transactions,
                  operation=info.get("operation") or "", parameters=info.get("operationParameters") or {})  # fmt: skip


def data_path(path: str, where: Root) -> str:
    """Return the path of a file below the table as it is on disk: the log has it in the form of a URL."""
    plain = unquote(path)
    if plain.startswith("/") or re.match(r"^[A-Za-z][A-Za-z0-9+.-]*:/", path) or ".." in plain.split("/"):
        raise InputError(
            "lists a file outside of the table, as shallow clones do; such tables are not read",
            code="table-unsupported",
            path=str(where),
        )
    return plain


def parse_shape(metadata: Mapping[str, Any], where: Root) -> Shape:
    """Return what a ``metaData`` action says of the table."""
    configuration = metadata.get("configuration") or {}
    schema = require().Schema.from_json(metadata["schemaString"])
    return Shape(
        id=metadata["id"],
        schema=pa.schema(schema.to_arrow()),
        partitions=tuple(metadata.get("partitionColumns") or ()),
        configuration=configuration,
        naming=naming(schema, configuration, where),
    )


def check_features(features: Sequence[str], where: Root) -> None:
    """Refuse a table that needs a reader to know what we do not."""
    if unknown := sorted(set(features) - FEATURES):
        names = ", ".join(unknown)
        raise InputError(f"needs features that are not read: {names}", code="table-unsupported", path=str(where))


def _add(value: Mapping[str, Any], where: Root) -> Add:
    return Add(
        path=data_path(value["path"], where),
        rows=_count(value.get("stats")),
        partition=value.get("partitionValues") or {},
        has_vector=bool(value.get("deletionVector")),
    )


def _count(stats: Any) -> int | None:
    """Return the number of rows that the statistics of a file tell."""
    try:
        found = orjson.loads(stats).get("numRecords") if isinstance(stats, str) and stats else None
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def look(root: Root, version: int) -> Look | None:
    """Return what can be seen of a commit; None if it is not there.

    Its tag tells it from another one of that number, as in a table put in the place of the old one.
    """
    return storage(root).look(_commit(version))
