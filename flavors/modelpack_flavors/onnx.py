"""ONNX: graphs run by onnxruntime, and checked twins of models of other frameworks (docs/flavors/onnx.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelpack import infer
from modelpack.audits import onnx_graph
from modelpack.audits.onnx_graph import Facts
from modelpack.errors import FlavorError, ModelpackError, PackageError, UsageError
from modelpack.flavor import LoadContext, Predictor, SaveContext, Saved, only_options
from modelpack.signature import Table
from modelpack_flavors._onnx import ports, scoring, sessions, writing
from modelpack_flavors._onnx.casting import ELEMENTS

__all__ = ["FLAVOR"]

_OPTIONS = sessions.OPTIONS | {"columns", "outputs"}
OLDEST = "1.20"


@dataclass(frozen=True, slots=True)
class OnnxFlavor:
    """Saves and loads ONNX models, and writes models of other flavors as ONNX.

    Options of save: ``outputs`` (names, in the order wanted), ``columns`` (for each input, the columns it is made of),
    ``providers``, ``intra_op_threads``, ``inter_op_threads``, ``optimization`` ("all", "extended", "basic", "none").
    """

    name: str = "onnx"
    version: str = "1"
    formats: Sequence[str] = ("onnx",)
    extra: str = "onnx"

    def matches(self, model: object) -> int:
        """Return 50 for a ModelProto, an exported torch program, and the path of a .onnx file; 10 for bytes."""
        bases = type(model).__mro__
        if any(b.__name__ in ("ModelProto", "ONNXProgram") and "onnx" in b.__module__.split(".") for b in bases):
            return 50
        if any(b.__name__ == "ModelProto" and b.__module__.startswith("onnx") for b in bases):
            return 50
        if isinstance(model, str | Path):
            return 50 if str(model).endswith(".onnx") else 0
        return 10 if isinstance(model, bytes) and model[:1] == b"\x08" else 0

    def save(self, model: object, context: SaveContext) -> Saved:
        """Write ``model.onnx`` and the files that hold its tensors.

        Raises:
            UsageError: an unknown option, or one with an unknown value (``option-unknown``, ``option-invalid``).
            SaveError: the model cannot be read or would not be loaded (``model-invalid``, ``model-unsupported``).
            FlavorError: the installed onnxruntime is too old for the model (``runtime-too-old``).
        """
        _check(context.options)
        raw, origin = writing.raw_of(model)
        facts = writing.write(raw, context.directory, origin)
        ports.check_supported(facts)
        columns = context.options.get("columns") or _columns(facts, context.example)
        config = {**context.options, **({"columns": columns} if columns else {})}
        try:
            predictor = scoring.build(facts, writing.source_of(facts, raw, context.directory), config)
        except FlavorError as exc:
            if exc.code != "config-invalid":
                raise
            path = exc.path.replace("config.", "options.") if exc.path else ""
            raise UsageError(exc.message, code="option-invalid", path=path) from None
        return saved(facts, predictor, config, nulls=_nulls(facts, columns))

    def convert(self, model: object, source: Saved, context: SaveContext) -> Saved:
        """Write a scikit-learn model as an ONNX graph over float64.

        Raises:
            UsageError: skl2onnx is not installed (``extra-missing``).
            FlavorError: there is no conversion (``conversion-unsupported``).
        """
        from modelpack_flavors._onnx import converting

        made = converting.convert(model, source, context.example)
        facts = writing.write(made.raw, context.directory)
        try:
            predictor = scoring.build(facts, made.raw, made.config)
        except PackageError as exc:
            raise FlavorError(
                f"onnxruntime does not run the converted model: {exc.hint}", code="conversion-unsupported", path="also"
            ) from exc
        return saved(facts, predictor, made.config, thresholds=made.thresholds)

    def load(self, context: LoadContext) -> Predictor:
        """Build the predictor from verified bytes, audited again here.

        Raises:
            UsageError: onnxruntime is not installed (``extra-missing``).
            FlavorError: it is too old (``runtime-too-old``), or the config is not one for this model
                (``config-invalid``).
            PackageError: the file is not what its format says (``payload-invalid``).
        """
        entry = context.entry or ""
        files: Any = context.files
        raw = context.files.read(entry)
        facts = onnx_graph.inspect(raw, entry, onnx_graph.sizes(files, entry))
        source = context.files.directory() / entry if facts.external else raw
        return scoring.build(facts, source, context.config)


def saved(
    facts: Facts,
    predictor: Predictor,
    config: Mapping[str, Any],
    *,
    nulls: Mapping[str, bool] | None = None,
    thresholds: Mapping[str | int, Sequence[float]] | None = None,
) -> Saved:
    """Return what was written, for the manifest."""
    oldest = max(OLDEST, sessions.needs(facts) or OLDEST, key=lambda release: tuple(map(int, release.split("."))))
    return Saved(
        format="onnx",
        entry=writing.ENTRY,
        predictor=predictor,
        config=config,
        requires=(f"onnxruntime>={oldest}",),
        declares={
            "ir_version": facts.ir_version,
            "opsets": {domain or "ai.onnx": version for domain, version in sorted(facts.opsets.items())},
            "producer": facts.producer,
            "operators": list(facts.operators),
        },
        signature=ports.signature(facts),
        nulls=nulls or None,
        thresholds=thresholds or {},
    )


def _check(options: Mapping[str, Any]) -> None:
    only_options("onnx", options, _OPTIONS)
    sessions.check_options(options, UsageError, "option-invalid", "options")


def _columns(facts: Facts, example: Any) -> dict[str, list[str]]:
    """Return the columns of each input as the example shows them; nothing if it is no table or does not fit."""
    try:
        io = infer.io(example) if example is not None else None
        if not isinstance(io, Table):
            return {}
        found = ports.Inputs(values=facts.inputs, columns={}).match([column.name for column in io.columns])
    except ModelpackError:
        # What does not fit is told when the example is scored.
        return {}
    return {name: list(columns) for name, columns in found.items()}


def _nulls(facts: Facts, columns: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """Return the columns that have no missing values: those of inputs that are not floats."""
    kinds = {value.name: ELEMENTS[value.element] for value in facts.inputs}
    return {c: False for name, parts in columns.items() if not kinds[name].startswith("float") for c in parts}


FLAVOR = OnnxFlavor()
