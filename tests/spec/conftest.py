"""What the tests of the specification share: where it lies, its schemas, its vectors as packages on disk."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

SPEC = Path(__file__).parents[2] / "spec"


@pytest.fixture(autouse=True)
def no_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "trust"))


@pytest.fixture(scope="session")
def spec() -> Path:
    return SPEC


@pytest.fixture(scope="session")
def schema() -> Callable[[str], Any]:
    """Return a function that gives the validator of ``spec/schemas/<name>.schema.json``."""

    @functools.cache
    def validator(name: str) -> Any:
        raw = json.loads((SPEC / "schemas" / f"{name}.schema.json").read_bytes())
        jsonschema.Draft202012Validator.check_schema(raw)
        return jsonschema.Draft202012Validator(raw)

    return validator


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[[Path, dict[str, Any]], Path]:
    """Return a function that copies a vector's package and does what its ``build`` says."""

    def build(folder: Path, case: dict[str, Any]) -> Path:
        root = tmp_path / "pkg"
        if (folder / "pkg").is_dir():
            shutil.copytree(folder / "pkg", root)
        root.mkdir(exist_ok=True)
        for step in case.get("build", ()):
            do(root, step)
        return root

    return build


def do(root: Path, step: dict[str, Any]) -> None:
    """Do one step of a vector's ``build``."""
    match step:
        case {"symlink": [target, link]}:
            made(root / link).symlink_to(target)
        case {"hardlink": [existing, new]}:
            made(root / new).hardlink_to(root / existing)
        case {"fifo": path}:
            os.mkfifo(made(root / path))
        case {"socket": path}:
            bind(made(root / path))
        case {"mkdir": path}:
            (root / path).mkdir(parents=True)
        case {"remove": path}:
            (root / path).unlink()
        case {"write": path, "text": text}:
            made(root / path).write_bytes(text.encode())
        case {"write": path, "base64": text}:
            made(root / path).write_bytes(b64decode(text, validate=True))
        case {"write_name_base64": name, "text": text}:
            made(root / os.fsdecode(b64decode(name, validate=True))).write_bytes(text.encode())
        case {"write": path, "repeat": part, "times": times}:
            text = step.get("prefix", "") + part * times + step.get("suffix", "")
            made(root / path).write_bytes(text.encode())
        case _:
            raise AssertionError(f"no such step: {step}")


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def bind(path: Path) -> None:
    # A socket's address is short, whatever the temporary directory is called.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
