"""Saving a model as a package: whole or not at all (spec/02-package.md#saving)."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from modelpack import atomic, coerce, environment, examples, fieldpath, files, flavor, infer, render, trust
from modelpack.errors import Fault, FlavorError, SaveError, TrustError, UsageError
from modelpack.flavor import Flavor, SaveContext, Saved
from modelpack.frame import Frame
from modelpack.manifest import Example, FileEntry, FlavorEntry, Manifest, Payload, Producer, content_digest
from modelpack.package import Package
from modelpack.pathrules import MANIFEST
from modelpack.signature import IO, Column, Json, Signature, Table, Tensor, Tensors

__all__ = ["Details", "save"]

PAYLOAD = "native"
_Part = TypeVar("_Part", Column, Tensor)
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


def save(
    model: object,
    path: str | os.PathLike[str],
    *,
    flavor: str | None = None,
    example: Any = None,
    signature: Signature | None = None,
    name: str | None = None,
    version: str = "1",
    description: str | None = None,
    license: str | None = None,  # noqa: A002 - the field's name
    authors: Sequence[str] = (),
    task: str | None = None,
    tags: Mapping[str, str] | None = None,
    provenance: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    dependencies: Iterable[str] = (),
    code: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    options: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
    overwrite: bool = False,
) -> Package:
    """Write the model as a package at ``path`` and return it, opened.

    ``flavor`` names the flavor, found from the object if None. ``example`` is input data as the model takes it: it
    gives the signature, and the model's answer to it is recorded, so that the package can test itself. ``signature``
    overrides what the example would give. ``name`` is made from the path if None. ``dependencies`` are requirements
    (PEP 508) beyond what the flavor needs. ``code`` are Python files or directories the model needs, copied into the
    package. ``options`` are the flavor's own. Nothing is reloaded, no process started, no network used. The
    package's digest is granted to this user, so that one's own models just load.

    Raises:
        SaveError: the path exists (``target-exists``; pass ``overwrite=True``), the model cannot be written, or it
            fails on the example.
        FlavorError: no flavor saves such an object.
        SignatureError: the example has no signature that can be written.
    """
    if also:
        raise UsageError("no second payload can be written yet", code="also-unsupported", path="also[0]")
    chosen = find_flavor(model, flavor)
    target = Path(path)
    details = Details(
        name=name if name is not None else _name_from(target),
        version=version,
        description=description,
        license=license,
        authors=tuple(authors),
        task=task,
        tags=tags or {},
        provenance=provenance or {},
        metrics=metrics,
    )
    sources = [Path(code)] if isinstance(code, str | os.PathLike) else [Path(one) for one in code]
    with atomic.directory(target, overwrite=overwrite) as staging:
        # 1. The flavor writes its payload.
        context = SaveContext(
            directory=_made(staging / "payloads" / PAYLOAD), options=options or {}, code=sources, example=example
        )
        saved = chosen.save(model, context)
        # 2. The package's own code.
        _copy_code(sources, staging)
        # 3. The signature, and the answer to the example.
        signed, frame, answer = _signature(saved, example, signature)
        # 4. The example's request and response.
        _write_examples(staging, frame, answer)
        # 5. The manifest, over the files as they are.
        try:
            raw = _manifest(staging, chosen, saved, signed, details, tuple(dependencies)).to_bytes()
        except ValidationError as exc:
            raise _refused(exc) from None
        Manifest.parse(raw)
        (staging / MANIFEST).write_bytes(raw)
    # 6. One's own packages just load.
    package = Package(target, raw)
    _grant(package)
    return package


def find_flavor(model: object, name: str | None) -> Flavor:
    """Return the flavor called ``name``, or the one that fits the object best.

    Raises:
        FlavorError: ``flavor-unknown``, or ``flavor-none-fits``.
    """
    if name is not None:
        return flavor.get(name)
    flavors = [flavor.get(one) for one in flavor.available()]
    best = max(flavors, key=lambda one: one.matches(model), default=None)
    if best is None or best.matches(model) <= 0:
        kind = type(model)
        raise FlavorError(
            f"no installed flavor saves a {kind.__module__}.{kind.__qualname__}",
            code="flavor-none-fits",
            hint=f"Installed flavors: {', '.join(sorted(flavor.available())) or 'none'}.",
        )
    return best


def _name_from(target: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", target.resolve().name.lower()).strip("-")[:128].strip("-")
    return slug or "model"


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _copy_code(sources: Sequence[Path], staging: Path) -> None:
    for i, source in enumerate(sources):
        place = staging / "code" / source.resolve().name
        if place.exists():
            raise SaveError(f"two sources are called {place.name!r}", code="code-duplicate", path=f"code[{i}]")
        place.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]", ".*"))
        elif source.is_file():
            shutil.copyfile(source, place)
        else:
            raise SaveError(f"{source} is neither a file nor a directory", code="code-missing", path=f"code[{i}]")


def _signature(saved: Saved, example: Any, given: Signature | None) -> tuple[Signature, Frame | None, Frame | None]:
    """Return the signature (the caller's, else the example's, else the flavor's), the example, and its answer."""
    own = saved.signature or Signature()
    params = given.params if given and given.params else tuple(saved.params) or own.params
    inputs = (given.inputs if given else None) or (
        _with_nulls(infer.io(example), saved.nulls) if example is not None else own.inputs
    )
    signature = Signature(inputs=inputs, outputs=given.outputs if given else None, params=params)
    coerce.check_defaults(signature)
    if example is None:
        return _outputs(signature, signature.outputs or own.outputs), None, None
    frame = coerce.inputs(example, signature, at="example")
    values = coerce.params(None, signature)
    data = render.to(frame, saved.predictor.form)
    try:
        raw = saved.predictor.predict(data, values)
    except Exception as exc:
        raise SaveError(
            f"the model raised {type(exc).__name__} on the example: {exc}",
            code="example-failed",
            path="example",
            hint="Give an example that the model can score, or none.",
        ) from exc
    io = signature.outputs or _answer_io(raw, frame.rows)
    answer = coerce.outputs(raw, io, rows=frame.rows)
    return _outputs(signature, io), frame.slice(0, examples.MAX_ROWS), answer.slice(0, examples.MAX_ROWS)


def _outputs(signature: Signature, outputs: IO | None) -> Signature:
    return Signature(inputs=signature.inputs, outputs=outputs, params=signature.params)


def _with_nulls(io: Table | Tensors, nulls: bool | Mapping[str, bool] | None) -> Table | Tensors:
    """Let the model say where values may be missing; the example decides where the model does not say."""
    if nulls is None:
        return io

    def says(name: str, now: bool) -> bool:
        return nulls if isinstance(nulls, bool) else nulls.get(name, now)

    if isinstance(io, Table):
        return Table(
            kind="table",
            columns=tuple(_copy(c, nullable=says(c.name, c.nullable)) for c in io.columns),
            extra_columns=io.extra_columns,
        )
    return Tensors(
        kind="tensors",
        tensors=tuple(_copy(t, nullable=t.dtype.startswith("float") and says(t.name, t.nullable)) for t in io.tensors),
    )


def _answer_io(raw: Any, rows: int) -> IO:
    """Return the outputs' signature: what the answer looks like, and NaN allowed, since an answer is the model's own.

    An answer that is not one row for each row of the input is JSON: nothing can be said of its shape.
    """
    io = infer.answer(raw)
    if isinstance(io, Json) or coerce.outputs(raw, io).rows != rows:
        return Json(kind="json")
    return _with_nulls(io, True)


def _copy(part: _Part, *, nullable: bool) -> _Part:
    return part.model_copy(update={"nullable": nullable})


def _write_examples(staging: Path, frame: Frame | None, answer: Frame | None) -> None:
    if frame is None or answer is None:
        return
    folder = _made(staging / "examples")
    (folder / "example.input.json").write_bytes(examples.request_bytes(frame))
    (folder / "example.output.json").write_bytes(examples.response_bytes(answer))


def _manifest(
    staging: Path,
    chosen: Flavor,
    saved: Saved,
    signature: Signature,
    details: Details,
    dependencies: tuple[str, ...],
) -> Manifest:
    entries = list(_entries(staging))
    env = environment.capture(saved.packages, dependencies, python=saved.python)
    payload_files = tuple(e.path for e in entries if e.role == "payload")
    payloads = {}
    if payload_files:
        payloads[PAYLOAD] = Payload(
            format=saved.format,
            files=payload_files,
            entry=f"payloads/{PAYLOAD}/{saved.entry}" if saved.entry else None,
            made_with={name: env.captured[name] for name in sorted(saved.packages) if name in env.captured},
            declares=dict(saved.declares),
        )
    code = tuple(e.path for e in entries if e.role == "code")
    has_example = any(e.role == "example" for e in entries)
    return Manifest(
        name=details.name,
        version=details.version,
        created=_created(),
        producer=Producer(name="modelpack-python", version=_own_version()),
        description=details.description,
        license=details.license,
        authors=tuple(details.authors),
        task=details.task,
        tags=dict(details.tags),
        signature=signature,
        payloads=payloads,
        flavors=(
            FlavorEntry(
                name=chosen.name,
                version=chosen.version,
                payloads={"model": PAYLOAD} if payloads else {},
                config=dict(saved.config),
                entrypoint=saved.entrypoint,
                code=code,
            ),
        ),
        examples=(_EXAMPLE,) if has_example else (),
        environment=env,
        provenance=dict(details.provenance),
        metrics=tuple(dict(metric) for metric in details.metrics),
        files=tuple(entries),
        content_digest=content_digest(entries),
    )


def _refused(exc: ValidationError) -> SaveError:
    """Say which of the caller's words the format does not allow."""
    faults = [Fault("field-invalid", fieldpath.join("", *error["loc"]), error["msg"]) for error in exc.errors()]
    return SaveError.from_faults(faults, hint="See spec/03-manifest.md for what the field may hold.")


_EXAMPLE = Example(name="example", input="examples/example.input.json", output="examples/example.output.json")
_ROLES: Mapping[str, _Role] = {"payloads": "payload", "code": "code", "examples": "example"}


def _entries(staging: Path) -> Iterator[FileEntry]:
    sizes, faults = files.scan(staging)
    if faults:
        raise SaveError.from_faults(faults)
    for path in sorted(sizes, key=str.encode):
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


def _own_version() -> str:
    return importlib.metadata.version("modelpack")


def _grant(package: Package) -> None:
    """Grant the digest if loading needs it; a store that cannot be written is a note, not a failed save."""
    manifest = package.manifest
    try:
        if any(candidate.trust == "code" for candidate in package.plan().candidates):
            trust.default_store().add(package.digest, name=manifest.name, version=manifest.version, source="saved")
    except (OSError, TrustError) as exc:
        warnings.warn(
            f"the package is written, but its digest could not be granted to you ({exc}): load it with "
            "allow_code=<its digest>, or set MODELPACK_TRUST_STORE to a directory of yours",
            stacklevel=3,
        )
