"""The environment in the words of other tools."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
import yaml
from packaging.requirements import Requirement

import modelpack
from modelpack.environments import export, locking
from modelpack.errors import EnvironmentMismatch, UsageError


def test_requirements_have_the_hashes_of_the_lock(locked: modelpack.Package) -> None:
    (line,) = export.export(locked, "requirements").splitlines()
    assert line == locking.pins(locked)[0][0].line()
    assert line.startswith("tiny-twice==1.2 --hash=sha256:")


def test_without_a_lock_requirements_are_what_the_package_asks_for(package: modelpack.Package) -> None:
    lines = export.export(package, "requirements").splitlines()
    assert [Requirement(line).name for line in lines] == ["tiny-twice"]
    with pytest.raises(EnvironmentMismatch) as info:
        export.export(package, "pylock")
    assert info.value.code == "lock-missing"


def test_a_partial_lock_is_no_pylock(package: modelpack.Package) -> None:
    made = locking.lock(package.path, partial=True)
    assert export.export(made, "requirements") == "tiny-twice==1.2\n"
    with pytest.raises(EnvironmentMismatch, match="partial"):
        export.export(made, "pylock")


def test_a_pylock_is_the_packages_own(locked: modelpack.Package) -> None:
    assert export.export(locked, "pylock").encode() == (locked.path / "environment" / "pylock.toml").read_bytes()


def test_conda_gets_the_python_and_the_pins(locked: modelpack.Package) -> None:
    found = yaml.safe_load(export.export(locked, "conda"))
    python = ".".join((locked.environment.python.captured or "").split(".")[:2])
    assert found["dependencies"] == [f"python={python}", "pip", {"pip": ["tiny-twice==1.2"]}]


def test_the_dockerfile_takes_hashed_wheels_and_runs_without_rights(locked: modelpack.Package) -> None:
    text = export.export(locked, "dockerfile", base="python:3.11-slim@sha256:" + "0" * 64)
    assert f"ARG BASE=python:3.11-slim@sha256:{'0' * 64}\n" in text
    assert locking.pins(locked)[0][0].line() in text
    for part in ("--require-hashes", "--only-binary :all:", "\nUSER 10001\n", "HEALTHCHECK", "/health"):
        assert part in text
    assert text.count("FROM ${BASE}") == 2


@pytest.mark.parametrize("base", ["evil\nRUN x", "a b", "-x", "x@sha256:1"])
def test_a_base_that_is_no_image_is_refused(locked: modelpack.Package, base: str) -> None:
    with pytest.raises(UsageError) as info:
        export.export(locked, "dockerfile", base=base)
    assert info.value.code == "base-invalid"


def test_the_command_prints_nothing_else(
    locked: modelpack.Package, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("env", "export", locked.path, "--format", "conda")
    assert (done.stdout, done.stderr) == (export.export(locked, "conda"), "")
