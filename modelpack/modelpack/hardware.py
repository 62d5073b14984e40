"""The processor and the accelerator a model was saved on, as far as they change answers (spec/03-manifest.md#hardware).

Only files are read: no process is started, no driver woken, and no framework imported.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from modelpack.environment import Difference

__all__ = ["capture", "compare"]

# The levels of the x86-64 psABI, by the names Linux has for what each adds.
_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)
# What numeric libraries choose their kernels by, beyond the levels; on ARM there are no levels.
_X86 = {"amx_bf16", "amx_fp16", "amx_int8", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni"}
_ARM = {"asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sme", "sve", "sve2"}
_PROCESSORS = Path("/proc/cpuinfo")
_NVIDIA = Path("/proc/driver/nvidia")
# The first processor's entry lies within; reading those of all takes long where there are hundreds.
_ENOUGH = 16_384


def capture(distributions: Collection[str]) -> dict[str, Any]:
    """Return what a manifest says of the machine: its processor, and CUDA where torch was built for it or it is here.

    ``distributions`` are those that the model needs; torch's build is told if it is one of them.
    """
    cuda = _cuda(distributions)
    found = {"cpu": _cpu(), **({"cuda": cuda} if cuda else {})}
    return {"captured": {name: value for name, value in found.items() if value}}


def compare(recorded: Mapping[str, Any], distributions: Collection[str]) -> list[Difference]:
    """Return how this machine differs from the one recorded: notes, since it changes last digits and speed only.

    What was not recorded, or is no text or list of texts, is not compared.
    """
    before, here = _flat(recorded), _flat(capture(distributions))
    return [
        Difference(name=name, wanted=wanted, found=here.get(name, "none"), severity="note")
        for name, wanted in before.items()
        if here.get(name) != wanted
    ]


def _flat(hardware: Mapping[str, Any]) -> dict[str, str]:
    """Return the values by path, those of lists sorted and joined; a stranger wrote it, so anything may stand there."""
    found = {}
    captured = hardware.get("captured")
    for part in ("cpu", "cuda"):
        facts = captured.get(part) if isinstance(captured, dict) else None
        for name, value in facts.items() if isinstance(facts, dict) else ():
            words = value if isinstance(value, list) else [value]
            if words and all(isinstance(word, str) for word in words):
                found[f"{part} {name}"] = " ".join(sorted(words))
    return found


def _cpu() -> dict[str, Any]:
    """Return the level and the chosen-by features of the first processor; nothing where the system does not tell."""
    try:
        with _PROCESSORS.open() as file:
            first = re.search(r"^(?:flags|Features)\s*:(.*)$", file.read(_ENOUGH), re.MULTILINE)
    except OSError:
        return {}
    flags = set(first.group(1).split()) if first else set()
    level = "x86-64" if platform.machine() in ("x86_64", "AMD64") else None
    for name, needed in _LEVELS if level else ():
        if not needed <= flags:
            break
        level = name
    features = sorted(flags & (_X86 | _ARM))
    return {**({"level": level} if level else {}), **({"features": features} if features else {})}


def _cuda(distributions: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "torch" in distributions and (built := _built_for()):
        found["built"] = built
    try:
        version = re.search(r"\s([0-9]+\.[0-9.]+)\s", (_NVIDIA / "version").read_text())
        cards = [(path / "information").read_text() for path in sorted((_NVIDIA / "gpus").iterdir())]
    except OSError:
        return found
    if version:
        found["driver"] = version.group(1)
    models = [match.group(1) for text in cards if (match := re.search(r"^Model:\s*(.+?)\s*$", text, re.MULTILINE))]
    return {**found, **({"devices": models} if models else {})}


def _built_for() -> str | None:
    """Return the version of CUDA that the installed torch was built for; None if for none."""
    try:
        place = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py")))
        found = re.search(r"^cuda\b[^=\n]*= *['\"]([0-9.]+)['\"]", place.read_text(), re.MULTILINE)
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return found.group(1) if found else None
