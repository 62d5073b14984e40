"""Which distributions are known: those that our flavors need, by their very names."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import modelpack
from modelpack import environment, recording, saving
from modelpack.environments import cache, consent, locking, pylock, uv
from modelpack.environments.wanted import Pin
from modelpack.errors import TrustError
from modelpack.manifest import Lock

FLAVORS = ("sklearn", "python", "onnx", "twins", "xgboost", "lightgbm", "torch", "transformers", "spark")
# What torch 2.14 for CUDA 13 and torch 2.10 for CUDA 12 ask for on Linux, with what that asks for.
CUDA_13 = """
cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime
nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13
nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
"""
CUDA_12 = """
cuda-bindings nvidia-cublas-cu12 nvidia-cuda-cupti-cu12 nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12
nvidia-cudnn-cu12 nvidia-cufft-cu12 nvidia-cufile-cu12 nvidia-curand-cu12 nvidia-cusolver-cu12 nvidia-cusparse-cu12
nvidia-cusparselt-cu12 nvidia-nccl-cu12 nvidia-nvjitlink-cu12 nvidia-nvshmem-cu12 nvidia-nvtx-cu12 triton
"""


def needed(name: str, extras: tuple[str, ...], seen: set[str]) -> Iterator[str]:
    """Yield what an installed distribution needs with these extras, and what that needs; of ours, what they add."""
    asked = extras if name == "modelpack" else ("", *extras)
    for text in importlib.metadata.requires(name) or []:
        one = Requirement(text)
        if not any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in asked):
            continue
        if name == "modelpack" and (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue
        if canonicalize_name(one.name) == "modelpack":
            yield from needed("modelpack", tuple(one.extras), seen)
        elif str(one) not in seen:
            seen.add(str(one))
            yield canonicalize_name(one.name)
            yield from needed(one.name, tuple(one.extras), seen)


@pytest.mark.parametrize("flavor", FLAVORS)
def test_what_a_flavor_needs_as_it_is_installed_here_is_known(flavor: str) -> None:
    found = set(needed("modelpack", (flavor,), set()))

    assert found
    assert environment.strange(found) == []


def test_ones_own_package_runs_with_whatever_a_lock_adds(
    plain: modelpack.Package, lock_as: Callable[..., modelpack.Package]
) -> None:
    assert not saving.granted(plain)
    locked = lock_as(plain, Pin(name="tiny-twice", version="1.2"))
    assert cache.prepared(locked).pins


def test_a_lock_of_somebody_elses_is_not_kept_beside_ours(
    plain: modelpack.Package, lock_as: Callable[..., modelpack.Package]
) -> None:
    other = plain.path / "theirs" / "pylock.toml"
    other.parent.mkdir()
    other.write_bytes(pylock.write([], python=None))
    env = plain.environment.model_copy(update={"locks": (Lock(kind="pylock", path="theirs/pylock.toml"),)})
    (plain.path / "modelpack.json").unlink()
    (plain.path / "modelpack.json").write_bytes(recording.equip(plain.manifest, plain.path, env, {}))

    locked = lock_as(modelpack.open(plain.path), Pin(name="numpy", version="2"))

    assert [one.path for one in locked.environment.locks] == ["environment/pylock.toml"]
    assert [one.name for one in locking.pins(locked)[0]] == ["numpy"]


def test_what_is_not_installed_here_needs_no_grant(
    plain: modelpack.Package,
    lock_as: Callable[..., modelpack.Package],
    indexes: uv.Indexes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("modelpack.environment.KNOWN", environment.KNOWN | {"tiny-twice"})
    elsewhere = [
        Pin(name="stranger", version="1", marker="sys_platform == 'win32'"),
        Pin(name="uvicorn", version="0.1", marker="python_version < '3'"),
    ]
    locked = lock_as(plain, Pin(name="tiny-twice", version="1.2"), *elsewhere)
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))

    built = cache.create(locked, indexes=indexes)

    assert [one.name for one in built.pins] == ["tiny-twice"]
    assert cache.prepared(locked).path == built.path
    # What nobody can decide counts.
    unclear = lock_as(plain, Pin(name="stranger", version="1", marker="os_name ~= 'x'"))
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "another"))
    with pytest.raises(TrustError, match="stranger"):
        cache.prepared(unclear)


@pytest.mark.parametrize("names", [CUDA_12, CUDA_13], ids=["cuda 12", "cuda 13"])
def test_torch_for_cuda_runs_without_a_grant(
    names: str, locked: modelpack.Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    pins = [Pin(name=name, version="1") for name in ("torch", *names.split())]
    more = [*pins, Pin(name="nvidia-cuda-12", version="1")]
    (lock,) = locked.environment.locks

    consent.require_for_running(locked, pins, lock, None, vendored=False)
    with pytest.raises(TrustError, match="nvidia-cuda-12, which"):
        consent.require_for_running(locked, more, lock, None, vendored=False)
