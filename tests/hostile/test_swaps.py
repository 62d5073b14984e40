"""Files swapped while a package is being loaded: what was verified is what is loaded, or it is refused."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import modelpack
from modelpack import loading
from modelpack.errors import IntegrityError, TrustError
from modelpack.package import Package

VECTORS = Path(__file__).parents[2] / "spec" / "vectors" / "invalid"
MARK = "modelpack-was-here"
OPENS = f"cbuiltins\nopen\n(V{MARK}\nVw\ntR.".encode()
X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where a mark would be left."""
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "trust"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return modelpack.save(LinearRegression().fit(X, X[:, 0] * 2), tmp_path / "pkg", example=X)


def payload(package: Package) -> Path:
    (found,) = package.path.rglob("*.skops")
    return found


def other_members() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        written.writestr("schema.json", '{"__class__": "open", "__module__": "builtins", "__loader__": "FunctionNode"}')
    return out.getvalue()


@pytest.mark.parametrize("swapped", [OPENS, other_members(), b""], ids=["pickle", "archive", "nothing"])
def test_a_swap_after_opening_is_seen(package: Package, here: Path, swapped: bytes) -> None:
    opened = modelpack.open(package.path)
    payload(package).write_bytes(swapped)
    with pytest.raises(IntegrityError) as info:
        modelpack.load(opened)
    assert info.value.code in ("size-mismatch", "digest-mismatch")
    assert list(here.iterdir()) == []


def test_a_link_in_place_of_a_file_is_seen(package: Package, here: Path, tmp_path: Path) -> None:
    opened = modelpack.open(package.path)
    other = payload(package).rename(tmp_path / "elsewhere")
    payload_again = package.path / "payloads" / "native" / "model.skops"
    payload_again.symlink_to(other)
    with pytest.raises(IntegrityError):
        modelpack.load(opened)


@pytest.mark.parametrize("step", ["_choose", "_build"])
def test_a_swap_while_it_is_loaded_changes_nothing(
    package: Package, here: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """After the audit the file is another one: what was audited is what is built."""
    before: Callable[..., Any] = getattr(loading, step)

    def swap(*args: Any, **kwargs: Any) -> Any:
        payload(package).write_bytes(OPENS)
        return before(*args, **kwargs)

    monkeypatch.setattr(loading, step, swap)
    model = modelpack.load(package.path)
    np.testing.assert_allclose(X[:, 0] * 2, model.predict(X), atol=1e-9)
    assert list(here.iterdir()) == []


def test_source_swapped_after_it_was_granted_does_not_run(tmp_path: Path, here: Path) -> None:
    package = tmp_path / "pkg"
    shutil.copytree(VECTORS / "load-mark-source" / "pkg", package)
    granted = modelpack.open(package)
    source = package / "code" / "hello.py"
    source.write_bytes(source.read_bytes().replace(b"'w'", b"'a'"))
    with pytest.raises(IntegrityError):
        modelpack.load(granted, allow_code=granted.digest)
    assert list(here.iterdir()) == []


def test_a_grant_is_not_for_a_package_with_another_manifest(package: Package, here: Path) -> None:
    granted = package.digest
    mark = package.path / "modelpack.json"
    mark.write_text(mark.read_text("utf-8").replace('"format": "skops"', '"format": "pickle"'), "utf-8")
    with pytest.raises(TrustError) as info:
        modelpack.load(package.path, allow_code=granted)
    assert info.value.code == "grant-mismatch"
    with pytest.raises(TrustError) as info:
        modelpack.load(package.path)
    assert info.value.code == "code-not-allowed"
    assert list(here.iterdir()) == []
