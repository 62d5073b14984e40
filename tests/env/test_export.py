"""The environment in the words of other tools."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import modelpack
from modelpack.environments import export, locking, pylock, uv, vendoring, wanted
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


def test_without_a_lock_conda_gets_all_that_the_package_asks_for(
    plain: modelpack.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = plain.environment.model_copy(
        update={"captured": {"scipy": "1.17.1"}, "dependencies": ("scipy==1.17.1", "pandas>=2")}
    )
    plain.manifest = plain.manifest.model_copy(update={"environment": env})
    found = yaml.safe_load(export.export(plain, "conda"))
    assert found["dependencies"][-1] == {"pip": ["scipy==1.17.1", "pandas>=2"]}


def test_conda_gets_markers_with_what_was_captured(plain: modelpack.Package) -> None:
    env = plain.environment.model_copy(
        update={"captured": {"pywin32": "306"}, "dependencies": ("pywin32; sys_platform == 'win32'",)}
    )
    plain.manifest = plain.manifest.model_copy(update={"environment": env})
    found = yaml.safe_load(export.export(plain, "conda"))
    marker = 'sys_platform == "win32"'
    assert found["dependencies"][-1] == {"pip": [f"pywin32==306 ; {marker}", f"pywin32; {marker}"]}


@pytest.fixture
def dockerfile(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[dict[str, str], list[Any]]]:
    """Return the parser by which scripts/env-image runs a Dockerfile."""
    script = Path(__file__).parent.parent.parent / "scripts" / "env_image.py"
    spec = importlib.util.spec_from_file_location("env_image", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "env_image", module)
    spec.loader.exec_module(module)
    parse: Callable[[str], tuple[dict[str, str], list[Any]]] = module.parse
    return parse


def test_the_dockerfile_takes_hashed_wheels_and_runs_without_rights(locked: modelpack.Package, dockerfile: Any) -> None:
    image = "python:3.11-slim@sha256:" + "0" * 64
    arguments, (first, last) = dockerfile(export.export(locked, "dockerfile", base=image))

    assert arguments == {"BASE": image}
    assert (first.base, first.name, last.base, last.name) == (image, "build", image, None)
    assert [step.word for step in (*first.steps, *last.steps)].count("ADD") == 0
    (copied,) = [step for step in first.steps if step.word == "COPY"]
    assert copied.text == export.export(locked, "requirements")
    installs = [step.rest for step in first.steps if "install" in step.rest]
    assert ["--only-binary :all:" in one for one in installs] == [True, True]
    assert "--require-hashes" in installs[0] and "--no-deps" in installs[0]
    assert last.last("USER") == "10001"
    assert next(step.rest for step in last.steps if step.word == "COPY") == "--from=build /opt/model /opt/model"
    assert json.loads(last.last("HEALTHCHECK").partition("CMD ")[2])[:2] == ["python", "-c"]
    assert json.loads(last.last("ENTRYPOINT"))[:3] == ["modelpack", "serve", "/model"]


def test_the_dockerfile_of_a_package_with_wheels_inside_asks_no_index_for_them(
    locked: modelpack.Package, indexes: uv.Indexes, dockerfile: Any
) -> None:
    made = vendoring.into(locked.path, indexes=indexes)
    _, (first, _) = dockerfile(export.export(made, "dockerfile"))

    assert "package/environment/wheels /tmp/wheels" in [step.rest for step in first.steps if step.word == "COPY"]
    model, runtime = [step.rest for step in first.steps if "install" in step.rest]
    assert "--no-index --find-links /tmp/wheels" in model and "--require-hashes" in model
    assert "--no-index" not in runtime


def test_another_index_can_be_named_while_the_image_is_built(locked: modelpack.Package, dockerfile: Any) -> None:
    _, (first, last) = dockerfile(export.export(locked, "dockerfile"))
    assert [step.rest for step in first.steps if step.word == "ARG"] == ["PIP_EXTRA_INDEX_URL"]
    assert [step.rest for step in last.steps if step.word == "ARG"] == []


def test_the_dockerfile_of_a_partial_lock_claims_no_wheels(package: modelpack.Package, dockerfile: Any) -> None:
    text = export.export(locking.lock(package.path, partial=True), "dockerfile")
    _, (first, _) = dockerfile(text)

    assert "has wheels for" not in text and "partial lock" in text
    install = next(step.rest for step in first.steps if "-r /tmp/requirements.txt" in step.rest)
    assert "--no-deps" in install and "--require-hashes" not in install


def test_a_lock_for_every_platform_gives_an_image_for_both_processors(locked: modelpack.Package) -> None:
    assert export.platforms(locked) == ["x86_64", "aarch64"]
    assert 'in x86_64|aarch64) ;; *) echo "the lock has no wheels' in export.export(locked, "dockerfile")


@pytest.mark.parametrize(
    ("tags", "marker", "expected"),
    [
        (["cp311-cp311-manylinux_2_28_x86_64"], None, ["x86_64"]),
        (["cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_28_aarch64"], None, ["x86_64", "aarch64"]),
        (["cp311-cp311-manylinux_2_28_x86_64"], "platform_machine == 'x86_64'", ["x86_64", "aarch64"]),
        (["cp311-cp311-musllinux_1_2_x86_64", "cp311-cp311-manylinux_2_28_aarch64"], None, ["aarch64"]),
        (["py3-none-any"], None, ["x86_64", "aarch64"]),
    ],
)
def test_the_dockerfile_says_for_which_processors_the_lock_has_wheels(
    package: modelpack.Package,
    tags: list[str],
    marker: str | None,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = tuple(pylock.Artifact(name=f"x-1-{tag}.whl", sha256="0" * 64) for tag in tags)
    raw = pylock.write([pylock.Locked(pin=wanted.pin("x", "1", "lock", marker=marker), files=files)], python=None)
    made = with_lock(package, raw, monkeypatch)

    assert export.platforms(made) == expected
    assert f"in {'|'.join(expected)}) ;;" in export.export(made, "dockerfile")


def test_a_lock_without_wheels_for_linux_makes_no_image(
    package: modelpack.Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (pylock.Artifact(name="x-1-cp311-cp311-macosx_11_0_arm64.whl", sha256="0" * 64),)
    raw = pylock.write([pylock.Locked(pin=wanted.pin("x", "1", "lock"), files=files)], python=None)
    with pytest.raises(EnvironmentMismatch, match="no wheels for Linux") as info:
        export.export(with_lock(package, raw, monkeypatch), "dockerfile")
    assert info.value.code == "wheel-missing"


def with_lock(package: modelpack.Package, raw: bytes, monkeypatch: pytest.MonkeyPatch) -> modelpack.Package:
    """Return the package with these bytes as its lock."""
    monkeypatch.setattr(locking, "_resolved", lambda *_, **__: (raw, ""))
    return locking.lock(package.path, universal=True)


def test_without_a_lock_pip_brings_what_the_requirements_need(package: modelpack.Package, dockerfile: Any) -> None:
    _, (first, _) = dockerfile(export.export(package, "dockerfile"))
    texts = [step.text for step in first.steps if step.word == "COPY"]
    assert texts == [export.export(package, "requirements"), "tiny-twice==1.2\n"]
    install = next(step.rest for step in first.steps if "-r /tmp/requirements.txt" in step.rest)
    assert "--constraint /tmp/captured.txt" in install
    assert "--no-deps" not in install and "--require-hashes" not in install


def test_the_image_runs_the_code_that_its_exporter_has_allowed_and_no_other(
    locked: modelpack.Package, dockerfile: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, (_, last) = dockerfile(export.export(locked, "dockerfile"))
    assert json.loads(last.last("ENTRYPOINT"))[-2:] == ["--allow-code", locked.digest]
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))
    _, (_, last) = dockerfile(export.export(locked, "dockerfile"))
    assert "--allow-code" not in json.loads(last.last("ENTRYPOINT"))


def test_no_name_ends_the_text_it_stands_in(plain: modelpack.Package, dockerfile: Any) -> None:
    names = ("REQUIREMENTS", "CAPTURED", "EOF")
    env = plain.environment.model_copy(update={"dependencies": names, "captured": {}})
    plain.manifest = plain.manifest.model_copy(update={"environment": env})
    text = export.export(plain, "dockerfile")
    _, (first, _) = dockerfile(text)
    assert [step.text for step in first.steps if step.word == "COPY"] == ["REQUIREMENTS\nCAPTURED\nEOF\n"]
    for ending in re.findall(r"<<'(\w+)'", text):
        with pytest.raises(EnvironmentMismatch):
            wanted.requirements(env.model_copy(update={"dependencies": (ending,)}))


@pytest.mark.parametrize("name", ["true", "null", "no", "123", "1e3", "2026-01-02", "0x1f"])
def test_the_name_in_a_file_of_conda_is_text(plain: modelpack.Package, name: str) -> None:
    plain.manifest = plain.manifest.model_copy(update={"name": name})
    found = yaml.safe_load(export.export(plain, "conda"))
    assert found["name"] == name
    assert found["channels"] == ["conda-forge"]


@pytest.mark.parametrize(
    "base",
    [
        "reg.example/py:RC1",
        "reg.example:5000/team/py__x/a-b.c:1.2_RC-1@sha256:" + "0" * 64,
        "Reg.Example/py",
        "[::1]:5000/py",
        "localhost/py@sha512:" + "a" * 128,
    ],
)
def test_a_base_is_named_as_registries_name_images(locked: modelpack.Package, base: str, dockerfile: Any) -> None:
    assert dockerfile(export.export(locked, "dockerfile", base=base))[0] == {"BASE": base}


@pytest.mark.parametrize(
    "base",
    [
        "evil\nRUN x",
        "a b",
        "-x",
        "x@sha256:1",
        "Python",
        "a/B",
        "x:",
        "x:-1",
        "x:1:2",
        "x@sha256:" + "A" * 64,
        "é",
        "x\n",
    ],
)
def test_a_base_that_is_no_image_is_refused(locked: modelpack.Package, base: str) -> None:
    with pytest.raises(UsageError) as info:
        export.export(locked, "dockerfile", base=base)
    assert info.value.code == "base-invalid"


def test_the_command_prints_nothing_else(
    locked: modelpack.Package, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("env", "export", locked.path, "--format", "conda")
    assert (done.stdout, done.stderr) == (export.export(locked, "conda"), "")
