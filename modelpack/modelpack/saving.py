"""Saving a model as a package: whole or not at all (spec/02-package.md#saving)."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from modelpack import atomic, environment, examples, flavor, foreign, trust, twins
from modelpack.errors import FlavorError, InputError, SaveError, TrustError, UsageError
from modelpack.flavor import Converter, Flavor, SaveContext, Saved
from modelpack.learned import Learned, learn
from modelpack.manifest import Manifest
from modelpack.package import Package
from modelpack.pathrules import MANIFEST
from modelpack.recording import Details, Part, beside, record
from modelpack.signature import Signature

__all__ = ["save"]

PAYLOAD = "native"


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
    package. ``options`` are the flavor's own. ``also`` names what the package holds besides: a twin of the model in
    another flavor's format (``"onnx"``), documents for another tool (``"mlflow"``). Nothing is reloaded, no process
    started, no network used. The package's digest is granted to this user, so that one's own models just load.

    Raises:
        SaveError: the path exists (``target-exists``; pass ``overwrite=True``), the model cannot be written, or it
            fails on the example.
        FlavorError: no flavor saves such an object.
        SignatureError: the example has no signature that can be written.
    """
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
        parts = [Part(flavor=chosen.name, version=chosen.version, payload=PAYLOAD, saved=saved)]
        # 2. The package's own code.
        _copy_code(sources, staging)
        # 3. The signature, and the answer to the example.
        learned = learn(saved, example, signature)
        # 4. Twins: the same model in other formats, each held to the original's answers; those that the flavor offers
        #    stand before it.
        others = [(i, one) for i, one in enumerate(also) if one not in foreign.WRITERS]
        parts += [_twin(model, one, i, context, saved, learned) for i, one in others]
        parts += _offered(model, also, context, saved, learned)
        parts.sort(key=lambda part: part.flavor not in saved.twins)
        # 5. The example's request and response.
        _write_examples(staging, learned)
        # 6. The manifest, over the files as they are.
        raw = record(staging, parts, learned.signature, details, tuple(dependencies))
        # 7. Documents of other formats beside it.
        for one in (name for name in dict.fromkeys(also) if name in foreign.WRITERS):
            manifest = Manifest.parse(raw)
            raw = beside(staging, manifest, foreign.write(one, staging, manifest))
        Manifest.parse(raw)
        (staging / MANIFEST).write_bytes(raw)
        written = Package(staging, raw)
        asked = needs_grant(written)
    # 8. One's own packages just load.
    package = Package(target, raw)
    if asked:
        grant(package)
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


def needs_grant(package: Package) -> bool:
    """Say whether the package runs code of its own choice: in loading it, or in the environment that it asks for."""
    return package.runs_code() or bool(environment.strange(_names(package)))


def _names(package: Package) -> Iterator[str]:
    """Yield the names of the distributions that the package asks for; one with an extra is another than it is alone."""
    yield from package.environment.captured
    for one in map(Requirement, package.environment.dependencies):
        yield f"{one.name}[{','.join(sorted(one.extras))}]" if one.extras else one.name


def _name_from(target: Path) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", target.resolve().name.lower()).strip("-")[:128].strip("-")
    return slug or "model"


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _copy_code(sources: Sequence[Path], staging: Path) -> None:
    for i, source in enumerate(sources):
        name = source.resolve().name
        if not name:
            raise SaveError("the root of the file system is no package's code", code="code-missing", path=f"code[{i}]")
        place = staging / "code" / name
        if place.exists():
            raise SaveError(f"two sources are called {place.name!r}", code="code-duplicate", path=f"code[{i}]")
        place.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", "*.py[cod]", ".*"))
        elif source.is_file():
            shutil.copyfile(source, place)
        else:
            raise SaveError(f"{source} is neither a file nor a directory", code="code-missing", path=f"code[{i}]")


def _twin(model: object, name: str, position: int, context: SaveContext, saved: Saved, learned: Learned) -> Part:
    """Write the model in another flavor's format and check it; a twin that answers differently is refused."""
    other = flavor.get(name)
    if not isinstance(other, Converter):
        raise UsageError(
            f"flavor {name} does not convert other flavors' models", code="also-unsupported", path=f"also[{position}]"
        )
    if learned.frame is None:
        raise UsageError(
            "a second payload is checked on the example, and there is none", code="also-unchecked", path="example"
        )
    directory = _made(context.directory.parent / name)
    twin = SaveContext(directory=directory, options={}, example=context.example)
    return twins.make(other, model, saved, learned, twin, against=PAYLOAD)


def _offered(
    model: object, asked: Sequence[str], context: SaveContext, saved: Saved, learned: Learned
) -> Iterator[Part]:
    """Yield the twins that nobody asked for but the flavor offers, where they can be made, checked, and agree."""
    for name in saved.twins if learned.frame is not None else ():
        if name in asked:
            continue
        try:
            yield _twin(model, name, 0, context, saved, learned)
        except FlavorError as exc:
            if exc.code not in ("conversion-unsupported", "twin-differs", "twin-unchecked"):
                raise
            shutil.rmtree(context.directory.parent / name)
            if exc.code == "twin-differs":
                warnings.warn(f"the package is written without its twin {name}: {exc.message}", stacklevel=4)


def _write_examples(staging: Path, learned: Learned) -> None:
    if learned.frame is None or learned.answer is None:
        return
    folder = _made(staging / "examples")
    rows = examples.MAX_ROWS
    try:
        request = examples.request_bytes(learned.frame.slice(0, rows))
    except InputError as exc:
        raise SaveError(
            f"the example cannot be kept as a JSON request: {exc.message}",
            code=exc.code,
            path=f"example.{exc.path}" if exc.path else "example",
            hint="Leave such rows out of the example; the model may still be asked about them in Python and in files.",
        ) from exc
    (folder / "example.input.json").write_bytes(request)
    (folder / "example.output.json").write_bytes(examples.response_bytes(learned.answer.slice(0, rows)))


def grant(package: Package) -> None:
    """Grant the digest; a store that cannot be written is a note, not a failed save."""
    manifest = package.manifest
    try:
        trust.default_store().add(package.digest, name=manifest.name, version=manifest.version, source="saved")
    except (OSError, TrustError) as exc:
        warnings.warn(
            f"the package is written, but its digest could not be granted to you ({exc}): load it with "
            "allow_code=<its digest>, or set MODELPACK_TRUST_STORE to a directory of yours",
            stacklevel=3,
        )


def granted(package: Package) -> bool:
    """Say whether this user's store holds a grant for the package; a store that cannot be used holds none."""
    try:
        return trust.default_store().allows(package.digest)
    except (OSError, TrustError):
        return False
