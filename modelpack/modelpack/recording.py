"""The manifest of a package that is being written, over the files as they are (spec/03-manifest.md)."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from modelpack import environment, fieldpath, files, hardware, imports
from modelpack.errors import Fault, SaveError
from modelpack.flavor import BUILTIN, Saved
from modelpack.manifest import (
    Checked,
    Environment,
    Example,
    FileEntry,
    FlavorEntry,
    Manifest,
    Payload,
    Producer,
    content_digest,
)
from modelpack.signature import Signature

__all__ = ["Details", "Part", "beside", "derived", "equip", "extend", "needed", "record"]

# Payload formats that are pickles, and what is there anyway, whatever the package needs.
_PICKLES = ("cloudpickle", "pickle", "torch-pickle")
_OURS = frozenset({"modelpack", BUILTIN, "modelpack_server"})

_Role = Literal["payload", "code", "environment", "example", "doc", "license", "compat", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Details:
    """What the caller says about the model; everything goes into the manifest as given."""

    name: str
    version: str
    description: str | None = None
    license: str | None = None
    authors: Sequence[str] = ()
    task: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One flavor of the package that is being written, and the payload it wrote below ``payloads/<payload>/``."""

    flavor: str
    version: str
    payload: str
    saved: Saved
    checked: Checked | None = None


def record(
    staging: Path, parts: Sequence[Part], signature: Signature, details: Details, dependencies: Sequence[str]
) -> bytes:
    """Return the bytes of the manifest.

    Raises:
        SaveError: something the caller said is outside the format (``field-invalid``, with its path).
    """
    entries = list(_entries(staging))
    env = needed(staging, parts, dependencies)
    try:
        return _manifest(entries, parts, env, signature, details).to_bytes()
    except ValidationError as exc:
        faults = [Fault("field-invalid", fieldpath.join("", *error["loc"]), error["msg"]) for error in exc.errors()]
        raise SaveError.from_faults(faults, hint="See spec/03-manifest.md for what the field may hold.") from None


def needed(staging: Path, parts: Sequence[Part], dependencies: Sequence[str]) -> Environment:
    """Return the environment that the parts need, with what the package's code and its pickles import."""
    packages = tuple(dict.fromkeys(name for part in parts for name in part.saved.packages))
    required = [text for part in parts for text in part.saved.requires]
    return environment.capture(
        packages,
        dependencies,
        requires=required,
        imported=_imported(staging, parts),
        python=parts[0].saved.python,
    )


def _imported(staging: Path, parts: Sequence[Part]) -> Mapping[str, str]:
    """Return the distributions, with versions, that the package's own code and its pickles import."""
    modules = imports.of_directory(staging / "code")
    for part in parts:
        modules |= set(part.saved.imports)
        if part.saved.format in _PICKLES and part.saved.entry:
            modules |= imports.of_file((staging / "payloads" / part.payload / part.saved.entry).read_bytes())
    own = {path.name.removesuffix(".py") for path in (staging / "code").glob("*")}
    return imports.distributions(imports.without(modules, own | _OURS))


def extend(manifest: Manifest, staging: Path, part: Part, provenance: Mapping[str, Any]) -> bytes:
    """Return the bytes of the manifest of a package with one part more; all else is as it was.

    ``staging`` holds verified copies of the files that are listed, and those of the new part.
    """
    listed = {entry.path: entry for entry in manifest.files}
    entries = list(_entries(staging, known=listed))
    env = _joined(manifest.environment, environment.capture(part.saved.packages, requires=part.saved.requires))
    payload = _payload(part, entries, env)
    changes: dict[str, Any] = {
        "payloads": {**manifest.payloads, **({part.payload: payload} if payload else {})},
        # The order stays the first producer's preference.
        "flavors": (*manifest.flavors, _flavor(part, payload is not None, entries)),
    }
    return _changed(manifest, entries, env, provenance, changes)


def equip(manifest: Manifest, staging: Path, env: Environment, provenance: Mapping[str, Any]) -> bytes:
    """Return the bytes of the manifest with another environment section and the files that it names.

    ``staging`` holds verified copies of the files that are listed, except those below ``environment/``.
    """
    listed = {entry.path: entry for entry in manifest.files if not entry.path.startswith("environment/")}
    return _changed(manifest, list(_entries(staging, known=listed)), env, provenance, {})


def derived(manifest: Manifest, digest: str, change: str, **facts: Any) -> dict[str, Any]:
    """Return the provenance of a package that is made of another one by a ``change``, of which ``facts`` tell more.

    ``manifest`` and ``digest`` are those of the other (spec/08-flavors.md#twins).
    """
    step: dict[str, Any] = {"digest": digest, "change": change, **facts}
    if manifest.producer is not None:
        step["producer"] = manifest.producer.model_dump(mode="json")
    if "derived_from" in manifest.provenance:
        step["derived_from"] = manifest.provenance["derived_from"]
    return {**manifest.provenance, "derived_from": step}


def _changed(
    manifest: Manifest,
    entries: Sequence[FileEntry],
    env: Environment,
    provenance: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> bytes:
    always: dict[str, Any] = {
        "created": _created() or manifest.created,
        "producer": _producer(),
        "environment": env,
        "provenance": dict(provenance),
        "files": tuple(entries),
        "content_digest": content_digest(entries),
    }
    return manifest.model_copy(update={**changes, **always}).to_bytes()


def _joined(old: Environment, new: Environment) -> Environment:
    """Return the old environment and what is new in the other; what was captured stays as it was."""
    known = set(map(_name, old.dependencies))
    more = [text for text in new.dependencies if _name(text) not in known]
    captured = {**new.captured, **old.captured}
    return old.model_copy(
        update={
            "dependencies": tuple(sorted((*old.dependencies, *more), key=_name)),
            "captured": {name: captured[name] for name in sorted(captured, key=str.casefold)},
            "origins": {**new.origins, **old.origins},
        }
    )


def _name(requirement: str) -> str:
    """Return the name of the distribution; what another producer wrote and nobody can read stands for itself."""
    try:
        return canonicalize_name(Requirement(requirement).name)
    except InvalidRequirement:
        return requirement


def _producer() -> Producer:
    return Producer(name="modelpack-python", version=importlib.metadata.version("modelpack"))


def beside(staging: Path, manifest: Manifest, documents: Sequence[str]) -> bytes:
    """Return the bytes of the manifest with documents of other formats added to its files, by their paths."""
    added = []
    for path in documents:
        digest, size = files.hash_file(staging / path)
        added.append(FileEntry(path=path, size=size, digest=digest, role="compat"))
    entries = tuple(sorted([*manifest.files, *added], key=lambda entry: entry.path.encode()))
    return manifest.model_copy(update={"files": entries, "content_digest": content_digest(entries)}).to_bytes()


def _manifest(
    entries: Sequence[FileEntry],
    parts: Sequence[Part],
    env: Environment,
    signature: Signature,
    details: Details,
) -> Manifest:
    payloads = {part.payload: found for part in parts if (found := _payload(part, entries, env)) is not None}
    return Manifest(
        name=details.name,
        version=details.version,
        created=_created(),
        producer=_producer(),
        description=details.description,
        license=details.license,
        authors=tuple(details.authors),
        task=details.task,
        tags=dict(details.tags),
        signature=signature,
        payloads=payloads,
        flavors=tuple(_flavor(part, part.payload in payloads, entries) for part in parts),
        examples=(_EXAMPLE,) if any(e.role == "example" for e in entries) else (),
        environment=env,
        hardware=hardware.capture(env.captured),
        provenance=dict(details.provenance),
        metrics=tuple(dict(metric) for metric in details.metrics),
        files=tuple(entries),
        content_digest=content_digest(entries),
    )


def _payload(part: Part, entries: Sequence[FileEntry], env: Environment) -> Payload | None:
    home = f"payloads/{part.payload}/"
    saved = part.saved
    paths = tuple(entry.path for entry in entries if entry.path.startswith(home))
    if not paths:
        return None
    return Payload(
        format=saved.format,
        files=paths,
        entry=home + saved.entry if saved.entry else None,
        made_with={name: env.captured[name] for name in _distributions(saved) if name in env.captured},
        declares=dict(saved.declares),
    )


def _distributions(saved: Saved) -> list[str]:
    return sorted({*saved.packages, *(Requirement(text).name for text in saved.requires)})


def _flavor(part: Part, has_payload: bool, entries: Sequence[FileEntry]) -> FlavorEntry:
    # A twin is made so that it needs none of the model's own code.
    code = (
        ()
        if part.checked or not part.saved.needs_code
        else tuple(entry.path for entry in entries if entry.role == "code")
    )
    return FlavorEntry(
        name=part.flavor,
        version=part.version,
        payloads={"model": part.payload} if has_payload else {},
        config=dict(part.saved.config),
        entrypoint=part.saved.entrypoint,
        code=code,
        checked=part.checked,
    )


_EXAMPLE = Example(name="example", input="examples/example.input.json", output="examples/example.output.json")
_ROLES: Mapping[str, _Role] = {
    "payloads": "payload",
    "code": "code",
    "examples": "example",
    "environment": "environment",
}


def _entries(staging: Path, known: Mapping[str, FileEntry] = MappingProxyType({})) -> Iterator[FileEntry]:
    sizes, faults = files.scan(staging)
    if faults:
        raise SaveError.from_faults(faults)
    for path in sorted(sizes, key=str.encode):
        if path in known:
            yield known[path]
            continue
        digest, size = files.hash_file(staging / path)
        yield FileEntry(path=path, size=size, digest=digest, role=_ROLES.get(path.split("/")[0], "other"))


def _created() -> str | None:
    """Return the time SOURCE_DATE_EPOCH names; without it none, so that saving twice gives the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return None
    try:
        return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise SaveError("SOURCE_DATE_EPOCH is not a number of seconds", code="epoch-invalid") from None
