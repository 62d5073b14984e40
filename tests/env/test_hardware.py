"""The processor and CUDA as they were: read from the system's files, written down, compared."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelpack
from modelpack import hardware

V2 = "fpu sse2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
V3 = f"{V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = f"{V3} avx512bw avx512cd avx512dq avx512f avx512vl"
# As two drivers write them into /proc.
DRIVERS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n": "535.183.01",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release\nGCC version: 12.2.0\n": "580.65.06",
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this a machine with another processor, other cards and another torch."""

    def become(line: str, arch: str = "x86_64", driver: str = "", cards: int = 0, torch: str = "") -> None:
        place = tmp_path / "proc"
        place.mkdir(exist_ok=True)
        (place / "cpuinfo").write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
        nvidia = place / "nvidia"
        for i in range(cards):
            (nvidia / "gpus" / f"0000:0{i}:00.0").mkdir(parents=True)
            (nvidia / "gpus" / f"0000:0{i}:00.0" / "information").write_text("Model: \t\t NVIDIA L4\nIRQ: 1\n")
        if driver:
            (nvidia / "version").write_text(driver)
        monkeypatch.setattr(hardware, "_PROCESSORS", place / "cpuinfo")
        monkeypatch.setattr(hardware, "_NVIDIA", nvidia)
        monkeypatch.setattr("platform.machine", lambda: arch)
        if torch:
            site = tmp_path / "site"
            (site / "torch").mkdir(parents=True)
            (site / "torch" / "version.py").write_text(f"__version__ = '9.1'\ncuda: Optional[str] = {torch}\n")
            (site / "torch-9.1.dist-info").mkdir()
            (site / "torch-9.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.1\n")
            monkeypatch.syspath_prepend(site)

    return become


@pytest.mark.parametrize(
    ("line", "arch", "expected"),
    [
        ("flags\t\t: fpu sse2", "x86_64", {"level": "x86-64"}),
        (f"flags\t\t: {V2} avx", "x86_64", {"level": "x86-64-v2"}),
        (f"flags\t\t: {V3} avx_vnni", "x86_64", {"level": "x86-64-v3", "features": ["avx_vnni"]}),
        (f"flags\t\t: {V4} amx_bf16 avx512_vnni", "x86_64",
         {"level": "x86-64-v4", "features": ["amx_bf16", "avx512_vnni"]}),
        # Without a level below it, the one above does not count.
        (f"flags\t\t: {V4.replace('avx2 ', '')}", "x86_64", {"level": "x86-64-v2"}),
        ("Features\t: fp asimd sve bf16", "aarch64", {"features": ["asimd", "bf16", "sve"]}),
    ],
)  # fmt: skip
def test_a_processor_is_told_by_its_level_and_by_what_libraries_choose_by(
    line: str, arch: str, expected: dict[str, Any], machine: Callable[..., None]
) -> None:
    machine(line, arch)

    assert hardware.capture([]) == {"captured": {"cpu": expected}}


def test_where_the_system_does_not_tell_nothing_is_written(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("flags: fpu")
    monkeypatch.setattr(hardware, "_PROCESSORS", Path("/nowhere"))

    assert hardware.capture([]) == {"captured": {}}


@pytest.mark.parametrize(("said", "version"), DRIVERS.items(), ids=DRIVERS.values())
def test_cuda_is_told_without_waking_it(said: str, version: str, machine: Callable[..., None]) -> None:
    machine("flags: fpu", driver=said, cards=2, torch="'13.0'")

    found = hardware.capture({"torch": "9.1"})["captured"]["cuda"]

    assert found == {"built": "13.0", "driver": version, "devices": ["NVIDIA L4", "NVIDIA L4"]}


def test_a_torch_without_cuda_has_nothing_to_tell_of_it(machine: Callable[..., None]) -> None:
    machine("flags: fpu", torch="None")

    assert "cuda" not in hardware.capture({"torch": "9.1"})["captured"]


def test_another_machine_is_a_note(machine: Callable[..., None]) -> None:
    machine(f"flags: {V4} avx512_vnni", driver=next(iter(DRIVERS)), cards=1)
    recorded = hardware.capture([])
    assert hardware.compare(recorded, []) == []
    hardware._NVIDIA.rename(hardware._NVIDIA.with_name("gone"))
    machine(f"flags: {V3}")

    found = [(one.name, one.wanted, one.found, one.severity) for one in hardware.compare(recorded, [])]

    assert found == [
        ("cpu level", "x86-64-v4", "x86-64-v3", "note"),
        ("cpu features", "avx512_vnni", "none", "note"),
        ("cuda driver", "535.183.01", "none", "note"),
        ("cuda devices", "NVIDIA L4", "none", "note"),
    ]


@pytest.mark.parametrize(
    "written",
    [{}, {"captured": 1}, {"captured": {"cpu": [1], "cuda": {"driver": {"a": 1}, "devices": [1], "built": []}}}],
)
def test_what_another_producer_wrote_there_is_not_compared(written: dict[str, Any]) -> None:
    assert hardware.compare(written, []) == []


def test_a_package_tells_its_machine_and_env_diff_compares_it(
    machine: Callable[..., None], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # No processor has these together, so wherever the test runs, it is another one.
    machine(f"flags: {V2} amx_bf16")

    def score(data: Any) -> Any:
        return data

    package = modelpack.save(score, tmp_path / "package", example=np.ones((2, 2)))

    recorded = {"captured": {"cpu": {"level": "x86-64-v2", "features": ["amx_bf16"]}}}
    assert package.manifest.hardware == recorded
    assert hardware.compare(package.manifest.hardware, []) == []
    done = command("env", "diff", package.path)
    assert done.returncode == 0 and "note: cpu features: saved with amx_bf16, here " in done.stdout
