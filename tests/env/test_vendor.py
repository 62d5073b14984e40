"""Wheels inside a package or beside it: built and run with no network at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import modelpack
from modelpack import trust
from modelpack.environments import cache, locking, uv, vendoring
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, SaveError, TrustError


def test_a_complete_package_is_built_and_run_without_network(
    locked: modelpack.Package, indexes: uv.Indexes, wheels: Path, tmp_path: Path
) -> None:
    made = vendoring.into(locked.path, tmp_path / "complete", indexes=indexes)
    for path in wheels.iterdir():
        path.unlink()
    (tmp_path / "rows.jsonl").write_text('{"input": [21.0]}\n')
    scoring = ["predict", made.path, "-i", tmp_path / "rows.jsonl", "--keep", "none", "-o", "-", "--env", "isolated"]
    call = ["unshare", "-rn", sys.executable, "-P", "-m", "modelpack", *map(str, scoring)]

    done = subprocess.run(call, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"prediction_0": 42.0}
    assert "building the environment, 1 distributions" in done.stderr


def test_wheels_from_the_package_are_its_code(
    locked: modelpack.Package, indexes: uv.Indexes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("modelpack.environment.KNOWN", frozenset({"tiny-twice"}))
    plain = cache.prepared(locked)
    made = vendoring.into(locked.path, tmp_path / "complete", indexes=indexes)
    assert cache.prepared(made).path != plain.path
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    cache.prepared(locked)
    with pytest.raises(TrustError, match="tiny-twice"):
        cache.prepared(made)


def test_what_has_wheels_inside_and_no_code_runs_for_who_made_or_allowed_it(
    plain: modelpack.Package,
    lock_as: Callable[..., modelpack.Package],
    indexes: uv.Indexes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    locked = lock_as(plain, Pin(name="tiny-twice", version="1.2"))
    made = vendoring.into(locked.path, tmp_path / "complete", indexes=indexes)
    assert not made.runs_code()
    assert cache.prepared(made).pins

    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    with pytest.raises(TrustError, match="tiny-twice"):
        cache.prepared(made)
    trust.default_store().add(made.digest, name="plain", version="1")
    assert cache.prepared(made).pins


def test_wheels_beside_are_found_again(locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path) -> None:
    names = vendoring.beside(locked.path, tmp_path / "beside", indexes=indexes)

    assert names == ["tiny_twice-1.2-py3-none-any.whl"]
    again = uv.Indexes(find_links=(str(tmp_path / "beside"),), no_index=True)
    assert cache.create(locked, indexes=again).fresh


@pytest.mark.parametrize("way", ["beside", "output", "in place"])
def test_a_relative_path_is_one_from_where_the_command_is_called(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.chdir(tmp_path)
    package = locked.path.relative_to(tmp_path)
    if way == "beside":
        vendoring.beside(package, Path("there"), indexes=indexes)
        found = Path("there")
    else:
        found = vendoring.into(package, "there" if way == "output" else None, indexes=indexes).path / vendoring.INSIDE
    assert [path.name for path in (tmp_path / found).iterdir()] == ["tiny_twice-1.2-py3-none-any.whl"]


def test_pip_is_not_believed_that_all_wheels_are_there(
    locked: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendoring, "_fetch", lambda pins, fetched, options: (fetched / "x.whl").write_bytes(b"x"))
    with pytest.raises(EnvironmentMismatch, match=r"no wheel with a digest of the lock for tiny-twice") as info:
        vendoring.beside(locked.path, tmp_path / "beside", indexes=indexes)
    assert info.value.code == "vendor-failed"
    assert not (tmp_path / "beside").exists()


def test_wheels_are_those_of_the_models_python(
    plain: modelpack.Package,
    lock_as: Callable[..., modelpack.Package],
    wheels: Path,
    make_wheel: Callable[..., Path],
    indexes: uv.Indexes,
    tmp_path: Path,
) -> None:
    for path in wheels.iterdir():
        path.unlink()
    made = make_wheel(wheels, tag="cp399-none-any")
    locked = lock_as(
        plain,
        Pin(name="tiny-twice", version="1.2", marker="python_version == '3.99'"),
        Pin(name="for-older", version="1", marker="python_version < '3.99'"),
    )
    python = locked.environment.python.model_copy(update={"captured": "3.99.1"})
    env = locked.environment.model_copy(update={"python": python})
    changed = locked.manifest.model_copy(update={"environment": env})
    (locked.path / "modelpack.json").write_bytes(changed.to_bytes())

    assert vendoring.beside(locked.path, tmp_path / "beside", indexes=indexes) == [made.name]


def test_other_bytes_are_not_vendored(
    locked: modelpack.Package, indexes: uv.Indexes, wheels: Path, make_wheel: Callable[..., Path]
) -> None:
    make_wheel(wheels, source="raise SystemExit('evil')\n")
    with pytest.raises(EnvironmentMismatch, match="tiny") as info:
        vendoring.into(locked.path, indexes=indexes)
    assert info.value.code == "hash-mismatch"
    assert modelpack.open(locked.path).digest == locked.digest


def test_what_is_not_to_be_had_is_said_and_nothing_half_is_left(
    locked: modelpack.Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple?signature=secret")
    monkeypatch.setenv("PIP_RETRIES", "1")
    for indexes, code in (
        (uv.Indexes(), "index-unreachable"),
        (uv.Indexes(find_links=(str(tmp_path / "empty"),), no_index=True), "version-missing"),
    ):
        with pytest.raises(EnvironmentMismatch) as info:
            vendoring.beside(locked.path, tmp_path / "beside", indexes=indexes)
        assert info.value.code == code
        assert "secret" not in str(info.value)
        assert not (tmp_path / "beside").exists()


def test_where_no_directory_can_be_is_said(locked: modelpack.Package, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError) as info:
        vendoring.beside(locked.path, tmp_path / "file" / "beside")
    assert info.value.code == "target-unwritable"


@pytest.mark.parametrize("way", ["--beside", "-o"])
def test_a_full_disk_is_said_as_such(
    package: modelpack.Package, indexes: uv.Indexes, wheels: Path, make_wheel: Callable[..., Path], way: str
) -> None:
    make_wheel(wheels, source="def twice(x):\n    return x * 2\n" + "# filled\n" * 50_000)
    locked = locking.lock(package.path, indexes=indexes)
    disk = wheels.parent / "disk"
    disk.mkdir()
    call = [sys.executable, "-P", "-m", "modelpack", "env", "vendor", str(locked.path), way, str(disk / "made")]
    call += ["--json", "--find-links", str(wheels), "--no-index"]
    script = 'mount -t tmpfs -o size=200k tmpfs "$0" && "$@"; code=$?; ls -A "$0"; exit $code'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(disk), *call], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1, done.stderr
    error, end = json.JSONDecoder().raw_decode(done.stdout)
    assert error["error"]["code"] == "disk-full"
    assert done.stdout[end:].strip() == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("at https://me:key@host.example/x/?sig=abc%3D next", "https://***@host.example/x/?*** next"),
        ("url: /simple/x/?token=abc (Caused by", "/simple/x/?*** (Caused by"),
        ("Hash mismatch of https://host.example/x.whl", "https://host.example/x.whl"),
        ("is it there? yes", "is it there? yes"),
    ],
)
def test_of_an_address_no_secret_is_repeated(said: str, shown: str) -> None:
    assert shown in str(uv.failure(said))
    assert "abc" not in str(uv.failure(said)) and "key" not in str(uv.failure(said))


def test_a_partial_lock_is_not_vendored(package: modelpack.Package, tmp_path: Path) -> None:
    made = locking.lock(package.path, partial=True)
    with pytest.raises(EnvironmentMismatch) as info:
        vendoring.beside(made.path, tmp_path / "beside")
    assert info.value.code == "vendor-failed"
