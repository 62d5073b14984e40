"""Environments built from locks: whole or not there, of the locked bytes only, and run in."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

import modelpack
from modelpack.cli import place
from modelpack.environments import building, cache, layer, locking, quick, uv, wanted
from modelpack.environments.wanted import Pin
from modelpack.errors import EnvironmentMismatch, TrustError, UsageError
from modelpack.manifest import Environment, Python

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_two_builders_at_once_build_one_environment(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        built = list(pool.map(lambda _: cache.create(locked, indexes=indexes), range(3)))

    assert sorted(one.fresh for one in built) == [False, False, True]
    assert {one.path for one in built} == {path for path in environments.iterdir() if path.is_dir()}
    said = subprocess.run([built[0].python, "-c", "import tiny_twice; print(tiny_twice.twice(4))"], capture_output=True)
    assert said.stdout == b"8\n"


def test_what_was_left_half_built_is_built_anew(locked: modelpack.Package, indexes: uv.Indexes) -> None:
    place = cache.prepared(locked).path
    (place / "bin").mkdir(parents=True)
    assert not quick.hold(place)

    assert cache.create(locked, indexes=indexes).fresh
    assert (place / quick.MARKER).is_file()


def test_other_bytes_under_the_locked_name_are_refused_and_nothing_is_left(
    locked: modelpack.Package,
    indexes: uv.Indexes,
    wheels: Path,
    make_wheel: Callable[..., Path],
    environments: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_wheel(wheels, source="raise SystemExit('evil')\n")
    # What uv has kept are the locked bytes; another machine has nothing.
    monkeypatch.setenv("UV_CACHE_DIR", str(wheels.parent / "another-cache"))

    with pytest.raises(EnvironmentMismatch, match="tiny-twice") as info:
        cache.create(locked, indexes=indexes)
    assert info.value.code == "hash-mismatch"
    assert [path for path in environments.iterdir() if path.is_dir()] == []


def test_a_version_that_was_withdrawn_is_named(locked: modelpack.Package, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentMismatch, match="tiny-twice") as info:
        cache.create(locked, indexes=uv.Indexes(find_links=(str(tmp_path / "empty"),), no_index=True))
    assert info.value.code == "version-missing"


def test_an_index_that_cannot_be_reached_is_said(locked: modelpack.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentMismatch) as info:
        cache.create(locked)
    assert info.value.code == "index-unreachable"


def test_a_python_that_is_not_here_is_said(locked: modelpack.Package, indexes: uv.Indexes) -> None:
    python = locked.environment.python.model_copy(update={"captured": "3.99.1"})
    environment = locked.environment.model_copy(update={"python": python})
    locked.manifest = locked.manifest.model_copy(update={"environment": environment})
    with pytest.raises(EnvironmentMismatch, match=r"3\.99") as info:
        cache.create(locked, indexes=indexes)
    assert info.value.code == "python-unavailable"


@pytest.mark.parametrize("text", ["/tmp/evil", "../evil", "3", "3.x", "3.11 --evil", "٣.١١"])
def test_a_python_that_is_no_version_is_given_to_nobody(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv, "_call", lambda *_: pytest.fail("uv was called"))
    environment = Environment(python=Python(captured=text))
    for use in (
        wanted.series,
        building._interpreter,
        lambda one: locking._resolved(one, uv.Indexes(), universal=False, builds=False),
    ):
        with pytest.raises(EnvironmentMismatch) as info:
            use(environment)
        assert (info.value.code, info.value.path) == ("requirement-refused", "environment.python.captured")


@pytest.mark.parametrize("options", ["size=200k,mode=755", "size=1m,nr_inodes=4,mode=755"], ids=["uv", "before uv"])
def test_a_full_disk_is_said_as_such_and_nothing_half_is_left(
    package: modelpack.Package, indexes: uv.Indexes, wheels: Path, make_wheel: Callable[..., Path], options: str
) -> None:
    make_wheel(wheels, source="def twice(x):\n    return x * 2\n" + "# filled\n" * 50_000)
    locked = locking.lock(package.path, indexes=indexes)
    disk = wheels.parent / "disk"
    disk.mkdir()
    create = [sys.executable, "-P", "-m", "modelpack", "env", "create", str(locked.path), "--json"]
    create += ["--find-links", str(wheels), "--no-index"]
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && "$@"; code=$?; ls "$0"; exit $code'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, str(disk), *create],
        env={**os.environ, "MODELPACK_ENVIRONMENTS": str(disk)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    error, end = json.JSONDecoder().raw_decode(done.stdout)
    assert error["error"]["code"] == "disk-full"
    assert "env prune" in error["error"]["hint"]
    # Only the lock's file, which is hidden, is there.
    assert done.stdout[end:].strip() == ""


def test_without_network_it_is_said(locked: modelpack.Package) -> None:
    create = [sys.executable, "-P", "-m", "modelpack", "env", "create", str(locked.path)]
    variables = {**os.environ, "UV_HTTP_RETRIES": "0", "UV_DEFAULT_INDEX": "https://index.example/simple"}
    done = subprocess.run(["unshare", "-rn", *create], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "the package index cannot be reached" in done.stderr and "[index-unreachable]" in done.stderr
    assert "--find-links" in done.stderr


def test_without_uv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="uv") as info:
        uv.run(["--version"])
    assert (info.value.code, info.value.hint) == ("extra-missing", "pip install 'modelpack[env]'")


def test_a_partial_lock_is_installed_only_at_the_users_word(
    package: modelpack.Package, indexes: uv.Indexes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = locking.lock(package.path, partial=True)
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    with pytest.raises(UsageError) as info:
        cache.create(made, indexes=indexes)
    assert info.value.code == "lock-partial"
    assert "env create --unhashed" in (info.value.hint or "")
    assert cache.create(made, indexes=indexes, unhashed=True).fresh


def test_what_a_stranger_chose_is_not_run_before_it_is_allowed(
    locked: modelpack.Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache.prepared(locked).pins
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    with pytest.raises(TrustError, match="tiny-twice") as info:
        cache.prepared(locked)
    assert info.value.code == "code-not-allowed"
    assert cache.prepared(locked, allow_code=locked.digest).pins


def test_settings_of_uv_that_lie_about_are_not_read(
    package: modelpack.Package, indexes: uv.Indexes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.toml").write_text("of somebody else")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)

    locked = locking.lock(package.path, indexes=indexes)
    assert cache.create(locked, tmp_path / "venv", indexes=indexes).fresh


def test_a_package_without_a_lock_says_how_to_get_one(package: modelpack.Package, command: Command) -> None:
    done = command("serve", package.path, "--env", "isolated")
    assert done.returncode == 1
    assert "lock-missing" in done.stderr and "modelpack env lock" in done.stderr


def test_rows_are_scored_in_an_environment_that_has_what_this_one_lacks(
    locked: modelpack.Package, indexes: uv.Indexes, command: Command, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"input": [1.0]}\n{"input": [21.0]}\n')
    given = ("predict", locked.path, "-i", tmp_path / "rows.jsonl", "--keep", "none", "-o", "-")
    here = command(*given)
    assert here.returncode == 1 and "tiny_twice" in here.stderr
    cache.create(locked, indexes=indexes)

    there = command(*given, "--env", "isolated")

    assert there.stderr == ""
    assert [json.loads(line) for line in there.stdout.splitlines()] == [{"prediction_0": 2.0}, {"prediction_0": 42.0}]


def test_where_nothing_can_be_written_what_was_created_before_is_run_in(
    locked: modelpack.Package, indexes: uv.Indexes, command: Command, environments: Path
) -> None:
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    test = [sys.executable, "-P", "-m", "modelpack", "test", str(locked.path), "--env", "isolated"]
    there = ["unshare", "-rm", "sh", "-c", script, str(environments), *test]
    built = cache.create(locked, indexes=indexes).path

    lacking = subprocess.run(there, capture_output=True, text=True)
    created = command("env", "create", locked.path)
    done = subprocess.run(there, capture_output=True, text=True)

    assert lacking.returncode == 1
    assert "cache-unwritable" in lacking.stderr and "modelpack env create" in lacking.stderr
    assert created.stdout.strip() == str(built)
    assert (done.returncode, done.stdout, done.stderr) == (0, "example: 2 rows, ok (flavor python)\n", "")


def test_a_package_is_tested_in_its_own_environment(
    locked: modelpack.Package, indexes: uv.Indexes, command: Command
) -> None:
    assert command("test", locked.path).returncode == 1
    cache.create(locked, indexes=indexes)

    there = command("test", locked.path, "--env", "isolated")

    assert (there.returncode, there.stdout) == (0, "example: 2 rows, ok (flavor python)\n")


def test_the_runtime_lies_behind_what_the_lock_installed(locked: modelpack.Package, indexes: uv.Indexes) -> None:
    built = cache.create(locked, indexes=indexes)
    runtime = layer._layer(built)
    look = "import importlib.util as u; print(u.find_spec('pytest'))"
    call = f"import sys, modelpack, tiny_twice; print(sys.path[-1]); {look}"
    said = subprocess.run(
        [built.python, "-P", "-c", call],
        env={**os.environ, quick.RUNTIME: str(runtime)},
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == [str(runtime), "None"]


def test_a_stream_of_tables_runs_in_it(
    locked: modelpack.Package, indexes: uv.Indexes, command: Command, tmp_path: Path
) -> None:
    deltalake.write_deltalake(tmp_path / "from", pa.table({"input": [[1.0], [21.0]]}))
    cache.create(locked, indexes=indexes)

    done = command("stream", locked.path, "--from", tmp_path / "from", "--to", tmp_path / "to", "--once",
                   "--keep", "none", "--env", "isolated")  # fmt: skip

    assert done.returncode == 0, done.stderr
    found = deltalake.DeltaTable(tmp_path / "to").to_pyarrow_table()
    assert sorted(found["prediction_0"].to_pylist()) == [2.0, 42.0]


def test_extras_of_the_runtime_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        if name not in needs:
            raise importlib.metadata.PackageNotFoundError(name)
        return needs[name]

    needs = {
        "modelpack": ["Click>=8", 'deltalake; extra == "delta"', 's3fs; extra == "s3"', 'torch; extra == "torch"'],
        "click": ['colorama; sys_platform == "win32"'],
        "deltalake": ["arro3-core[x]"],
        "arro3-core": ['typing-extensions; extra == "x"'],
        "typing-extensions": [],
    }
    monkeypatch.setattr(importlib.metadata, "requires", requires)

    assert set(layer._runtime()) == {"modelpack", "click"}
    assert set(layer._runtime(layer._LENT)) == {"modelpack", "click", "deltalake", "arro3-core", "typing-extensions"}


def test_each_environment_is_compared_with_what_the_runtime_needs(
    locked: modelpack.Package, indexes: uv.Indexes
) -> None:
    built = cache.create(locked, indexes=indexes)
    assert layer._layer(built).is_dir()

    other = dataclasses.replace(built, pins=(*built.pins, Pin(name="pydantic", version="1.10")))
    with pytest.raises(EnvironmentMismatch, match=r"pins pydantic 1\.10, and the runtime's modelpack needs") as info:
        layer._layer(other)
    assert (info.value.code, info.value.path) == ("runtime-conflict", "environment.locks")


@pytest.mark.parametrize(
    ("found", "hint"), [(None, "Install Python 3.99 and modelpack in it"), ("/opt/py", "/opt/py -m pip install")]
)
def test_a_model_of_another_python_is_refused_before_anything_is_built(
    locked: modelpack.Package, found: str | None, hint: str, monkeypatch: pytest.MonkeyPatch, environments: Path
) -> None:
    if found:
        monkeypatch.setattr(uv, "interpreter", lambda series: found)
    python = locked.environment.python.model_copy(update={"captured": "3.99.1"})
    changed = locked.manifest.model_copy(
        update={"environment": locked.environment.model_copy(update={"python": python})}
    )
    (locked.path / "modelpack.json").write_bytes(changed.to_bytes())
    digest = modelpack.open(locked.path).digest

    with pytest.raises(EnvironmentMismatch, match=r"saved on Python 3\.99, and modelpack runs on") as info:
        place.enter_environment("isolated", str(locked.path), digest)

    assert (info.value.code, info.value.path) == ("runtime-conflict", "environment.python.captured")
    assert hint in (info.value.hint or "")
    assert not environments.exists()


def test_the_python_that_runs_here_is_found_by_uv() -> None:
    series = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = uv.interpreter(series)
    assert found is not None and Path(found).is_file()
