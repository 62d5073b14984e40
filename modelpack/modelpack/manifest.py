"""The manifest, ``modelpack.json``: what it may say, reading it and writing it (spec/03-manifest.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from modelpack import document, pathrules
from modelpack.dtypes import Strict
from modelpack.errors import Fault, ManifestError
from modelpack.fieldpath import join
from modelpack.signature import Signature

__all__ = [
    "FORMAT",
    "MAX_FILES",
    "Checked",
    "Environment",
    "Example",
    "FileEntry",
    "FlavorEntry",
    "Lock",
    "Manifest",
    "Payload",
    "Platform",
    "Producer",
    "Python",
    "Tolerance",
    "content_digest",
]

FORMAT = "1.0"
MAJOR, MINOR = 1, 0
MAX_FILES = 100_000
# Where the source files of a package lie.
CODE = "code/"
# Ids of critical features this reader implements; a package that requires any other is refused.
FEATURES: frozenset[str] = frozenset()


def _good_path(path: str) -> str:
    found = pathrules.fault(path)
    if found:
        raise PydanticCustomError(found[0], found[1])
    return path


def _good_time(time: str) -> str:
    try:
        datetime.fromisoformat(f"{time[:19]}+00:00")
    except ValueError:
        raise ValueError("no such date or time of day") from None
    return time


Path = Annotated[str, AfterValidator(_good_path)]
Time = Annotated[
    str,
    # Not \d, which takes the digits of every script.
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$", max_length=40),
    AfterValidator(_good_time),
]
Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", max_length=64)]
FormatId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]{0,63}$", max_length=64)]
FeatureId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./_-]{0,127}$", max_length=128)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Text = Annotated[str, Field(max_length=4096)]
Label = Annotated[str, Field(min_length=1, max_length=256)]
JsonObject = dict[str, Any]


class Producer(Strict):
    """The tool that wrote the package."""

    name: Label
    version: Label


class FileEntry(Strict):
    """One file of the package."""

    path: Path
    size: Annotated[int, Field(ge=0, le=2**53 - 1)]
    digest: Digest
    role: Literal["payload", "code", "environment", "example", "doc", "license", "compat", "other"]
    media_type: Label | None = None


class Payload(Strict):
    """The files that hold a model in one format.

    ``declares`` informs people; nothing in it is read when trust is decided.
    """

    format: FormatId
    files: Annotated[tuple[Path, ...], Field(min_length=1, strict=False)]
    entry: Path | None = None
    made_with: dict[Label, Label] = {}
    declares: JsonObject = {}


class Tolerance(Strict):
    """How far a number may be from the recorded one: ``|a - b| <= atol + rtol * |b|``."""

    rtol: Annotated[float, Field(ge=0)] = 1e-6
    atol: Annotated[float, Field(ge=0)] = 1e-9


class Checked(Strict):
    """How a twin was held to the answers of the flavor it was made from: on how many rows, and how close it came.

    ``rows`` counts the example and the rows made from it; ``largest_difference`` is relative to the tolerance's scale.
    """

    against: Id
    rows: Annotated[int, Field(ge=1)]
    tolerance: Tolerance
    largest_difference: Annotated[float, Field(ge=0)] = 0.0


class FlavorEntry(Strict):
    """One way to load the model: which flavor, from which payloads, with which options."""

    name: Id
    version: Annotated[str, Field(pattern=r"^[0-9]{1,9}$")] = "1"
    payloads: dict[Id, Id] = {}
    config: JsonObject = {}
    entrypoint: (
        Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_.]*$")]
        | None
    ) = None
    code: Annotated[tuple[Path, ...], Field(strict=False)] = ()
    checked: Checked | None = None


class Example(Strict):
    """A request and the answer the model gave when it was saved; both are files, both are HTTP bodies."""

    name: Id
    input: Path
    output: Path | None = None
    tolerance: Tolerance = Tolerance()


class Python(Strict):
    """The Python the model needs and the one it was saved on."""

    requires: Label | None = None
    captured: Label | None = None
    implementation: Label | None = None


class Platform(Strict):
    """The system the model was saved on."""

    os: Label | None = None
    arch: Label | None = None
    libc: Label | None = None


class Lock(Strict):
    """A lock file for the environment."""

    kind: Literal["pylock", "requirements", "requirements-hashed", "uv-lock", "conda-lock", "pixi-lock"]
    path: Path
    platforms: Annotated[tuple[Label, ...], Field(strict=False)] = ()


class Environment(Strict):
    """What has to be installed for the model to run, and what was when it was saved."""

    python: Python = Python()
    dependencies: Annotated[tuple[Label, ...], Field(strict=False)] = ()
    critical: Annotated[tuple[Label, ...], Field(strict=False)] = ()
    captured: dict[Label, Label] = {}
    origins: dict[Label, Label] = {}
    locks: Annotated[tuple[Lock, ...], Field(strict=False)] = ()
    platform: Platform = Platform()


class Manifest(Strict):
    """All that a package says of itself; frozen, checked, and independent of where the package lies."""

    modelpack: Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$")] = FORMAT
    requires: Annotated[tuple[FeatureId, ...], Field(strict=False)] = ()
    name: Annotated[str, Field(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=128)]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$", max_length=128)]
    created: Time | None = None
    producer: Producer | None = None
    description: Text | None = None
    license: Label | None = None
    authors: Annotated[tuple[Label, ...], Field(strict=False)] = ()
    task: Label | None = None
    tags: dict[Label, Text] = {}
    signature: Signature = Signature()
    payloads: dict[Id, Payload] = {}
    flavors: Annotated[tuple[FlavorEntry, ...], Field(min_length=1, strict=False)]
    examples: Annotated[tuple[Example, ...], Field(strict=False)] = ()
    environment: Environment = Environment()
    hardware: JsonObject = {}
    provenance: JsonObject = {}
    metrics: Annotated[tuple[JsonObject, ...], Field(strict=False)] = ()
    extensions: dict[
        Annotated[str, Field(pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+/[A-Za-z0-9._-]+$", max_length=256)], Any
    ] = {}
    files: Annotated[tuple[FileEntry, ...], Field(max_length=MAX_FILES, strict=False)]
    content_digest: Digest

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read the bytes of a manifest: strict JSON, a version we read, the schema, references that hold.

        A manifest of a newer minor version may have fields this reader does not know; they are ignored.

        Raises:
            ManifestError: with the code and path of the first thing wrong, all of them in ``faults``.
        """
        value = document.parse(raw)
        if not isinstance(value, dict):
            raise ManifestError("the manifest is not a JSON object", code="field-invalid")
        newer = _version(value)
        manifest = cls._validate(value, newer=newer)
        faults = list(_broken_rules(manifest))
        if faults:
            raise ManifestError.from_faults(faults)
        return manifest

    @classmethod
    def _validate(cls, value: dict[str, Any], *, newer: bool) -> Self:
        try:
            return cls.model_validate(value, context="file")
        except ValidationError as exc:
            errors = [error for error in exc.errors(include_url=False) if not _follows(value, error)]
        unknown = [e["loc"] for e in errors if e["type"] == "extra_forbidden"]
        if newer and unknown and len(unknown) == len(errors):
            for loc in unknown:
                _drop(value, loc)
            return cls._validate(value, newer=newer)
        if newer:
            errors = [error for error in errors if error["type"] != "extra_forbidden"]
        faults = [_fault(value, error) for error in errors]
        raise ManifestError.from_faults(sorted(faults, key=lambda fault: fault.code == "field-unknown"))

    def to_bytes(self) -> bytes:
        """Return the bytes of ``modelpack.json``: the same for equal manifests."""
        return document.dump({"modelpack": self.modelpack} | self.model_dump(mode="json"))


def digest_of(raw: bytes) -> str:
    """Return ``sha256:<hex>`` of the bytes."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def content_digest(files: Iterable[FileEntry]) -> str:
    """Return the digest over all files: sha256 of the sorted lines ``<hex>  <path>``.

    It is what ``sha256sum`` over the sorted paths, hashed again, gives (spec/04-digests.md#content-digest).
    """
    lines = sorted((entry.path.encode(), entry.digest.removeprefix("sha256:").encode()) for entry in files)
    return digest_of(b"".join(b"%s  %s\n" % (digest, path) for path, digest in lines))


def _version(value: Mapping[str, Any]) -> bool:
    """Refuse versions and features this reader does not know; say whether the minor version is newer than ours."""
    if "modelpack" not in value:
        raise ManifestError("the format version is missing", code="field-missing", path="modelpack")
    version = value["modelpack"]
    major, _, minor = version.partition(".") if isinstance(version, str) and version.isascii() else ("", "", "")
    if not (major.isdecimal() and minor.isdecimal() and len(version) <= 9):
        raise ManifestError("not a version MAJOR.MINOR", code="field-invalid", path="modelpack")
    if int(major) != MAJOR:
        raise ManifestError(
            f"this reader reads format {MAJOR}.x",
            code="version-unsupported",
            path="modelpack",
            hint="Use a modelpack release that reads it.",
        )
    requires = value.get("requires", [])
    for i, feature in enumerate(requires if isinstance(requires, list) else []):
        if isinstance(feature, str) and feature not in FEATURES:
            raise ManifestError(
                "the package requires a feature this reader does not have",
                code="feature-unsupported",
                path=f"requires[{i}]",
                hint="Use a modelpack release that has it.",
            )
    return int(minor) > MINOR


def _follows(root: Any, error: Any) -> bool:
    """Say whether one of pydantic's errors only follows from another: it counts a list's items that passed."""
    return error["type"] == "too_short" and bool(_locate(root, error["loc"], absent=False)[1])


def _fault(root: Any, error: Any) -> Fault:
    """Translate one of pydantic's errors."""
    kind = error["type"]
    path, _ = _locate(root, error["loc"], absent=kind == "missing")
    if kind == "null":
        return Fault("field-invalid", join(path, error["ctx"]["key"]), error["msg"])
    if kind == "missing":
        return Fault("field-missing", path, "the field is required")
    if kind == "extra_forbidden":
        return Fault("field-unknown", path, "no such field in this version of the format")
    if kind.startswith("path-"):
        return Fault(kind, path, error["msg"])
    message = error["msg"].removeprefix("Value error, ")
    return Fault("field-invalid", path, message[0].lower() + message[1:])


def _locate(root: Any, loc: tuple[str | int, ...], *, absent: bool) -> tuple[str, Any]:
    """Follow pydantic's location through the data; ``absent``: its last part is a key that is not there."""
    path, value = "", root
    for part in _plain(loc[:-1] if absent else loc):
        if _holds(value, part):
            path, value = join(path, part), value[part]
    return (join(path, loc[-1]), None) if absent else (path, value)


def _plain(loc: tuple[str | int, ...]) -> list[str | int]:
    """Leave out the names of union members, which pydantic puts behind the fields that hold unions by ``kind``."""
    unions = {"inputs", "outputs", "type"} if loc[:1] == ("signature",) else set()
    return [part for i, part in enumerate(loc) if not (i and loc[i - 1] in unions)]


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _drop(root: Any, loc: tuple[str | int, ...]) -> None:
    value = root
    for part in _plain(loc[:-1]):
        value = value[part]
    del value[loc[-1]]


def _broken_rules(manifest: Manifest) -> Iterable[Fault]:
    """Yield what is wrong between fields: paths that clash, names that lead nowhere, a wrong content digest."""
    paths = [entry.path for entry in manifest.files]
    for position, code, message in pathrules.clashes(paths):
        yield Fault(code, f"files[{position}].path", message)
    listed = set(paths)
    for where, path in _named_files(manifest):
        if path not in listed:
            yield Fault("reference-missing", where, "names a file that 'files' does not list")
    for id_, payload in manifest.payloads.items():
        if payload.entry is not None and payload.entry not in payload.files:
            yield Fault("reference-missing", join("payloads", id_, "entry"), "is not one of the payload's files")
    for i, flavor in enumerate(manifest.flavors):
        for slot, id_ in flavor.payloads.items():
            if id_ not in manifest.payloads:
                yield Fault("reference-missing", join(f"flavors[{i}].payloads", slot), "no payload has this id")
        for j, path in enumerate(flavor.code):
            if not path.startswith(CODE):
                yield Fault("code-misplaced", f"flavors[{i}].code[{j}]", f"a flavor's modules lie below {CODE}")
    names: set[str] = set()
    for i, example in enumerate(manifest.examples):
        if example.name in names:
            yield Fault("name-duplicate", f"examples[{i}].name", "two examples have this name")
        names.add(example.name)
    if content_digest(manifest.files) != manifest.content_digest:
        yield Fault("content-digest-mismatch", "content_digest", "is not the digest of the files listed")


def _named_files(manifest: Manifest) -> Iterable[tuple[str, str]]:
    for id_, payload in manifest.payloads.items():
        yield from ((join("payloads", id_, "files", i), path) for i, path in enumerate(payload.files))
    for i, flavor in enumerate(manifest.flavors):
        yield from ((f"flavors[{i}].code[{j}]", path) for j, path in enumerate(flavor.code))
    for i, example in enumerate(manifest.examples):
        yield f"examples[{i}].input", example.input
        if example.output is not None:
            yield f"examples[{i}].output", example.output
    yield from ((f"environment.locks[{i}].path", lock.path) for i, lock in enumerate(manifest.environment.locks))
