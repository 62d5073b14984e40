"""What the cache holds, and what pruning removes of it: what is ours and of no use, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest

import modelpack
from modelpack.environments import cache, layer, places, quick, uv

KEY = "0123456789abcdef" * 2


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_environments_are_listed_and_pruned_but_not_while_in_use(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path
) -> None:
    built = cache.create(locked, indexes=indexes)
    assert [(one["path"], one["pins"]) for one in cache.listed()] == [(str(built.path), ["tiny-twice==1.2"])]
    assert cache.prune(days=1) == []
    with places.locked(built.path, fcntl.LOCK_SH):
        assert cache.prune() == []
    assert cache.prune() == [str(built.path)]
    assert cache.listed() == []
    assert names(environments) == set()


def test_what_is_not_ours_stays_wherever_the_cache_is_said_to_be(environments: Path) -> None:
    """The variable may name somebody's home by mistake."""
    for name in ("photos", ".ssh", KEY, f".{KEY}.backup", ".layer-mine", ".package-notes.json"):
        (environments / name).mkdir(parents=True)
        (environments / name / "file").touch()
    (environments / "marked").mkdir()
    (environments / "marked" / quick.MARKER).write_text("{}")
    (environments / ("f" * 32)).symlink_to(environments / "photos")
    (environments / f".{KEY}.01234567").mkdir()
    (environments / f".{KEY}.01234567" / "file").touch()
    (environments / ".layer-0123456789abcdef").mkdir()
    (environments / ".layer-0123456789abcdef" / "file").touch()
    before = sorted(environments.rglob("*"))

    assert cache.prune() == []
    assert sorted(environments.rglob("*")) == before


@pytest.mark.parametrize("file", [f"{KEY}/{quick.MARKER}", f".{KEY}.lock"])
def test_what_is_ours_is_known_by_a_file_of_ours(environments: Path, file: str) -> None:
    (environments / KEY / "bin").mkdir(parents=True)
    (environments / file).touch()
    assert cache.prune() == [str(environments / KEY)]
    assert names(environments) == set()


def test_what_was_left_beside_environments_goes_too(
    locked: modelpack.Package, indexes: uv.Indexes, environments: Path
) -> None:
    built = cache.create(locked, indexes=indexes)
    runtime = layer._layer(built)
    quick.note(locked.digest, built.path, runtime)
    gone = environments / f".package-{'0' * 64}.json"
    gone.write_text(json.dumps({"environment": KEY, "layer": runtime.name}))
    (environments / f".{KEY}.lock").touch()
    (environments / f".{KEY}.01234567" / KEY / "bin").mkdir(parents=True)
    (environments / f"{gone.name}.01234567").touch()
    os.utime(environments / f"{gone.name}.01234567", (0, 0))

    assert cache.prune(days=1) == []
    kept = {built.path.name, f".{built.path.name}.lock", runtime.name, f".package-{locked.digest[7:]}.json"}
    assert names(environments) == kept
    os.utime(built.path / quick.MARKER, (0, 0))
    os.utime(runtime, (0, 0))
    assert cache.prune(days=1) == [str(built.path)]
    assert names(environments) == set()


def test_a_runtime_that_somebody_runs_with_stays(locked: modelpack.Package, indexes: uv.Indexes) -> None:
    runtime = layer._layer(cache.create(locked, indexes=indexes))
    file = os.open(runtime, os.O_RDONLY)
    fcntl.flock(file, fcntl.LOCK_SH)
    cache.prune()
    assert runtime.is_dir()
    os.close(file)
    cache.prune()
    assert not runtime.exists()
    assert not quick.hold_layer(runtime)


def test_a_runtime_that_is_pruned_while_it_is_entered_is_made_anew(
    locked: modelpack.Package, indexes: uv.Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = cache.create(locked, indexes=indexes)
    real = quick.hold_layer
    seen: list[Path | bool] = []

    def hold(runtime: Path) -> bool:
        seen.append(runtime)
        return real(runtime) if len(seen) > 1 else bool(shutil.rmtree(runtime))

    monkeypatch.setattr(quick, "hold_layer", hold)
    monkeypatch.setattr(quick, "become", lambda _, runtime, *__: seen.append(runtime.is_dir()))
    layer.enter(built, locked.digest, [])
    assert seen == [layer._layer(built)] * 2 + [True]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"package": 1, "pins": []}', "\udcff"])
def test_what_has_lost_its_marker_is_listed_as_such_and_built_anew(
    locked: modelpack.Package, indexes: uv.Indexes, text: str
) -> None:
    built = cache.create(locked, indexes=indexes)
    (built.path / quick.MARKER).write_bytes(text.encode(errors="surrogateescape"))
    [found] = cache.listed()
    assert (found["path"], found["pins"]) == (str(built.path), []) and "damaged" in found["package"]
    assert not quick.hold(built.path)
    assert cache.create(locked, indexes=indexes).fresh
    assert quick.hold(built.path)


def test_a_lock_that_was_pruned_while_somebody_waited_for_it_is_made_anew(environments: Path) -> None:
    environments.mkdir()
    place = environments / KEY
    real = fcntl.flock
    seen: list[int] = []

    def flock(file: int, how: int) -> None:
        real(file, how)
        seen.append(os.fstat(file).st_ino)
        if len(seen) == 1:
            (environments / f".{KEY}.lock").unlink()

    with pytest.MonkeyPatch.context() as there:
        there.setattr(fcntl, "flock", flock)
        with places.locked(place, fcntl.LOCK_EX) as file:
            assert os.fstat(file).st_ino == (environments / f".{KEY}.lock").stat().st_ino
    assert len(seen) == 2
    shutil.rmtree(environments)
