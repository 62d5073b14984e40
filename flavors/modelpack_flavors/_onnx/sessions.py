"""Sessions of onnxruntime, made from verified bytes with the options that a package may choose."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelpack.audits.onnx_graph import Facts
from modelpack.errors import FlavorError, PackageError, UsageError
from modelpack.optional import require

__all__ = ["OPTIONS", "check_options", "needs", "open_session"]

# The first release of onnxruntime for each version of the format and of the operator sets.
_RELEASES: Mapping[str, Sequence[tuple[int, str]]] = {
    "ir": ((8, "1.10"), (9, "1.15"), (10, "1.18"), (11, "1.22"), (12, "1.23")),
    "": ((15, "1.10"), (16, "1.11"), (17, "1.12"), (18, "1.14"), (19, "1.15"), (20, "1.17"), (21, "1.18"),
         (22, "1.21"), (23, "1.22"), (24, "1.23")),
    "ai.onnx.ml": ((2, "1.10"), (3, "1.11"), (4, "1.17"), (5, "1.20")),
}  # fmt: skip
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
OPTIONS = frozenset({"providers", "intra_op_threads", "inter_op_threads", "optimization"})
MAX_THREADS = 1024


def check_options(options: Mapping[str, Any], error: type[UsageError | FlavorError], code: str, at: str) -> None:
    """Refuse values that a session does not take."""
    for name in ("intra_op_threads", "inter_op_threads"):
        value = options.get(name, 0)
        if type(value) is not int or not 0 <= value <= MAX_THREADS:
            raise error(f"{name} is not a number from 0 to {MAX_THREADS}", code=code, path=f"{at}.{name}")
    if options.get("optimization", "all") not in _LEVELS:
        raise error(
            "not a level of optimization", code=code, path=f"{at}.optimization", hint=f"It is: {', '.join(_LEVELS)}."
        )
    providers = options.get("providers", ())
    known = isinstance(providers, list | tuple) and all(
        isinstance(name, str) and name.endswith("ExecutionProvider") and name.isalnum() for name in providers
    )
    if not known:
        raise error(
            "not a list of execution providers",
            code=code,
            path=f"{at}.providers",
            hint="Give names such as CUDAExecutionProvider.",
        )


def needs(facts: Facts) -> str | None:
    """Return the first release of onnxruntime that can run the model, "" if any can, None if it is not known."""
    # Before this release, a whole number divided by 0 ended the process.
    found = ["1.25" if facts.zero else "0"]
    for key, version in (("ir", facts.ir_version), *facts.opsets.items()):
        table = _RELEASES.get("" if key == "ai.onnx" else key)
        if table is None or version <= table[0][0]:
            continue
        release = dict(table).get(version)
        if release is None:
            return None
        found.append(release)
    best = max(found, key=_number)
    return "" if best == "0" else best


def _number(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:2] if part.isdigit())


def open_session(facts: Facts, source: bytes | Path, options: Mapping[str, Any]) -> Any:
    """Return a session for an audited model: its bytes, or its path in a private directory if it has other files.

    Raises:
        UsageError: onnxruntime is not installed (``extra-missing``).
        FlavorError: the one that is installed is too old (``runtime-too-old``).
        PackageError: onnxruntime does not take the model (``payload-invalid``).
    """
    runtime = require("onnxruntime", what="An ONNX model", extra="onnx")
    release = needs(facts)
    if release and _number(release) > _number(runtime.__version__):
        raise _too_old(runtime, f">= {release}", facts)
    chosen = runtime.SessionOptions()
    chosen.intra_op_num_threads = options.get("intra_op_threads", 0) or _threads()
    chosen.inter_op_num_threads = options.get("inter_op_threads", 0)
    chosen.graph_optimization_level = getattr(
        runtime.GraphOptimizationLevel, _LEVELS[options.get("optimization", "all")]
    )
    chosen.log_severity_level = 4
    # Threads that wait must not burn the processor of those that work.
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chosen.add_session_config_entry("session.load_model_format", "ONNX")
    here = runtime.get_available_providers()
    providers = [name for name in options.get("providers", ()) if name in here and name != "CPUExecutionProvider"]
    try:
        return runtime.InferenceSession(
            source if isinstance(source, bytes) else str(source),
            sess_options=chosen,
            providers=[*providers, "CPUExecutionProvider"],
        )
    except Exception as exc:  # onnxruntime has one class for each of its states
        if release is None or "Unsupported model IR version" in str(exc) or "under development" in str(exc):
            raise _too_old(runtime, f"newer than {runtime.__version__}", facts) from exc
        raise PackageError(
            f"onnxruntime {runtime.__version__} does not take the model: {type(exc).__name__}",
            code="payload-invalid",
            hint=str(exc)[:500],
        ) from exc


def _threads() -> int:
    """Return the threads that the environment gives to each library, which onnxruntime itself does not read; else 0.

    It would take all cores of the machine, also those that a container may not use.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(said), MAX_THREADS) if said.isascii() and said.isdecimal() and len(said) < 9 else 0


def _too_old(runtime: Any, wanted: str, facts: Facts) -> FlavorError:
    sets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(facts.opsets.items()))
    return FlavorError(
        f"the model needs onnxruntime {wanted}, installed is {runtime.__version__} "
        f"(IR version {facts.ir_version}; operator sets {sets})",
        code="runtime-too-old",
        hint="pip install --upgrade onnxruntime",
    )
