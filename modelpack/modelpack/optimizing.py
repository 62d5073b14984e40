"""A checked twin for a package that exists: another package, which says what it was made from (docs/twins.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import atomic, examples, flavor, installed, loading, render, saving, twins
from modelpack.errors import FlavorError, IntegrityError, ManifestError, UsageError
from modelpack.flavor import Converter, SaveContext, Saved
from modelpack.frame import Frame
from modelpack.learned import Learned
from modelpack.manifest import FORMAT, FlavorEntry, Manifest
from modelpack.model import Model
from modelpack.package import Package
from modelpack.pathrules import MANIFEST
from modelpack.probes import joined
from modelpack.recording import Part, derived, extend

__all__ = ["optimize"]

# What has a say in what a converted model computes.
_CONVERTERS = ("onnx", "onnxruntime", "skl2onnx")


def optimize(
    package: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    flavor: str = "onnx",
    allow_code: str | None = None,
) -> Package:
    """Write the package, with a twin in the format of ``flavor``, at ``output``; in its own place if that is None.

    The model is loaded through the gate and must give the answers recorded in the package's examples; the twin is
    held to it on these and on rows made from them. All else is copied as it was verified. The new package has another
    digest; if this user's trust store holds a grant for the old one, the new one gets one too.

    Raises:
        UsageError: the package has that flavor (``twin-present``), or no example to check it on (``also-unchecked``).
        FlavorError: there is no conversion (``conversion-unsupported``), it answers differently (``twin-differs``), or
            the model itself does not give the recorded answers here (``example-differs``).
        SaveError: it cannot be written.
        PackageError, TrustError, EnvironmentMismatch: as :func:`modelpack.load`.
    """
    opened = Package.open(package)
    original = _original(opened, flavor, allow_code)
    target = opened.path if output is None else Path(output)
    allowed = saving.granted(opened)
    with atomic.directory(target, overwrite=output is None) as staging:
        opened.files().copy_to(staging)
        part = original.twin(staging)
        raw = extend(opened.manifest, staging, part, _provenance(opened, original.entry, part))
        Manifest.parse(raw)
        (staging / MANIFEST).write_bytes(raw)
        made = Package(staging, raw)
        if output is None and Package.peek(target).digest != opened.digest:
            raise IntegrityError(
                "the package was replaced while its twin was made",
                code="digest-mismatch",
                path=MANIFEST,
                hint="Do it again.",
            )
        runs_code = made.runs_code()
    made = Package(target, raw)
    if allowed and runs_code:
        saving.grant(made)
    return made


def _converter(name: str) -> Converter:
    found = flavor.get(name)
    if not isinstance(found, Converter):
        raise UsageError(f"flavor {name} does not convert other flavors' models", code="also-unsupported")
    return found


def _original(package: Package, name: str, allow_code: str | None) -> _Original:
    manifest = package.manifest
    if manifest.modelpack != FORMAT:
        raise ManifestError(
            f"the package is of format {manifest.modelpack}; what this release ({FORMAT}) does not know would be lost",
            code="version-unsupported",
            path="modelpack",
            hint="Use a modelpack release that knows it.",
        )
    native = next((entry for entry in manifest.flavors if entry.checked is None), manifest.flavors[0])
    if any(entry.name == name for entry in manifest.flavors):
        raise UsageError(
            f"the package has flavor {name} already", code="twin-present", path="flavors", hint="Serve it."
        )
    if not manifest.examples:
        raise UsageError(
            "a second payload is checked on the package's examples, and there are none",
            code="also-unchecked",
            path="examples",
            hint="Save the model again with an example.",
        )
    model = loading.load(package, allow_code=allow_code, flavor=native.name)
    # No flavor is imported before the gate has let the package in, nor this one.
    return _Original(model=model, converter=_converter(name), frame=_frame(model))


def _frame(model: Model) -> Frame:
    """Return the rows of all examples, once the model has given the recorded answers to them."""
    frames = []
    for i, example in enumerate(model.manifest.examples):
        outcome = examples.check(model, example)
        if not outcome.passed:
            raise FlavorError(
                f"the model does not give the recorded answers here: {outcome.differences[0]}",
                code="example-differs",
                path=f"examples[{i}]",
                hint="Compare this environment with the one it was saved in: modelpack env diff.",
            )
        frames.append(examples.request(model, example)[0])
    return next(iter(joined(frames)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Original:
    """The loaded model that the twin is made from, and the rows it is checked on."""

    model: Model
    converter: Converter
    frame: Frame

    @property
    def entry(self) -> FlavorEntry:
        return self.model.manifest.flavors[self.model.candidate.index]

    def twin(self, staging: Path) -> Part:
        """Write the twin's payload below ``staging`` and check it."""
        at = f"flavors[{self.model.candidate.index}]"
        predictor = self.model._predictor
        shown: object | None = getattr(predictor, "model", None)
        if shown is None:
            raise FlavorError(
                f"flavor {self.entry.name} holds no model of a framework", code="conversion-unsupported", path=at
            )
        payload = next(iter(self.entry.payloads.values()), self.entry.name)
        saved = Saved(
            format=self.model.manifest.payloads[payload].format if self.entry.payloads else "",
            entry=None,
            predictor=predictor,
            config=self.entry.config,
        )
        example = render.to(self.frame, "pandas" if self.frame.columns is not None else "numpy")
        context = SaveContext(directory=self._directory(staging), options={}, example=example)
        learned = Learned(signature=self.model.signature, frame=self.frame)
        try:
            return twins.make(self.converter, shown, saved, learned, context, against=payload)
        except FlavorError as exc:
            # The hints are for one who saves.
            hint = "The package stays as it was; it is complete without a twin."
            raise FlavorError(exc.message, code=exc.code, path=at, hint=hint) from exc

    def _directory(self, staging: Path) -> Path:
        """Make a directory for a payload of an id that is free."""
        name, number = self.converter.name, 1
        while name in self.model.manifest.payloads or (staging / "payloads" / name).exists():
            number += 1
            name = f"{self.converter.name}-{number}"
        directory = staging / "payloads" / name
        directory.mkdir(parents=True)
        return directory


def _provenance(package: Package, entry: FlavorEntry, part: Part) -> Mapping[str, Any]:
    """Return the package's provenance, and from which package by which tools this one is derived."""
    manifest = package.manifest
    made_with = {name for id_ in entry.payloads.values() for name in manifest.payloads[id_].made_with}
    tools = {name: installed.version(name) for name in sorted({*_CONVERTERS, *made_with})}
    known = {name: version for name, version in tools.items() if version is not None}
    return derived(manifest, package.digest, "twin", flavor=part.flavor, tools=known)
