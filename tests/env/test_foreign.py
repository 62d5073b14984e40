"""Environments of directories that MLflow wrote: read from its documents, locked, exported and built as packages are.

The documents are as MLflow 3.17.2 writes them for `pip_requirements=` and `conda_env=`; the models are made here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelpack
from modelpack.environments import cache, export, locking, uv, wanted
from modelpack.errors import EnvironmentMismatch, PackageError

Command = Callable[..., subprocess.CompletedProcess[str]]
MLMODEL = """\
flavors:
  python_function:
    code: code
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: twice_loader
    python_version: 3.11.7
mlflow_version: 3.17.2
"""
LOADER = """\
class Model:
    def predict(self, frame):
        import tiny_twice
        return tiny_twice.twice(frame.iloc[:, 0])


def _load_pyfunc(path):
    return Model()
"""
PYTHON_ENV = """\
python: 3.11.7
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel
dependencies:
- -r requirements.txt
"""
CONDA = """\
channels:
- conda-forge
dependencies:
- python=3.11.7
- pip<=23.2.1
{more}- pip:
  - mlflow==3.17.2
{pip}name: mlflow-env
"""
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Write a directory as MLflow does, with these documents of its environment."""

    def write(**texts: str) -> Path:
        place = tmp_path / "directory"
        (place / "code").mkdir(parents=True)
        (place / "MLmodel").write_text(MLMODEL)
        (place / "code" / "twice_loader.py").write_text(LOADER)
        for name, text in texts.items():
            (place / name.replace("_yaml", ".yaml").replace("_txt", ".txt")).write_text(text)
        return place

    return write


def test_requirements_and_their_pins_are_read(folder: Folder) -> None:
    lines = "mlflow==3.17.2\nnumpy==2.4.6  # why\n# a comment\nscipy<2,\\\n>=1\nx==1.* \ny==2 ; os_name == 'nt'"
    made = folder(
        requirements_txt=lines,
        python_env_yaml=PYTHON_ENV,
        conda_yaml=CONDA.format(more="", pip="  - numpy==2.4.6\n"),
    )
    environment = modelpack.open(made).environment
    assert environment.python.captured == "3.11.7"
    assert list(environment.dependencies) == [
        "mlflow==3.17.2", "numpy==2.4.6", "scipy<2, >=1", "x==1.*", "y==2 ; os_name == 'nt'"
    ]  # fmt: skip
    assert environment.captured == {"mlflow": "3.17.2", "numpy": "2.4.6"}
    assert environment.critical == ()


def test_constraints_beside_them_fix_versions(folder: Folder) -> None:
    made = folder(
        requirements_txt="mlflow==3.17.2\n-c constraints.txt", constraints_txt="numpy==2.4.6\nscipy==1.17.1\n"
    )
    environment = modelpack.open(made).environment
    assert environment.dependencies == ("mlflow==3.17.2",)
    assert environment.captured == {"mlflow": "3.17.2", "numpy": "2.4.6", "scipy": "1.17.1"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("scikit-learn=1.9.1", "scikit-learn==1.9.1"),
        ("scikit-learn==1.9.1", "scikit-learn==1.9.1"),
        ("conda-forge::numpy=2.4=py311_0", "numpy==2.4.*"),
        ("pytorch>=2.1", "torch>=2.1"),
        ("pandas", "pandas"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("torch 2", "torch==2"),
        ("numpy  1.26.4  py310_0", "numpy==1.26.4"),
        ("numpy==1.26.4=py310_0", "numpy==1.26.4"),
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("numpy=1.26*", "numpy==1.26.*"),
        ("numpy *", "numpy"),
        ("numpy >= 1.26, < 2", "numpy<2,>=1.26"),
        ("numpy = 1.26", "numpy==1.26.*"),
        ("numpy ~=1.26,!=1.26.2", "numpy!=1.26.2,~=1.26"),
    ],
)
def test_what_conda_installs_is_called_as_the_index_calls_it(folder: Folder, spec: str, expected: str) -> None:
    made = folder(conda_yaml=CONDA.format(more=f"- {spec}\n", pip="  - tiny-twice==1.2\n"))
    found = wanted.requirements(modelpack.open(made).environment)
    assert found == ["mlflow==3.17.2", "tiny-twice==1.2", expected]


@pytest.mark.parametrize(
    "spec",
    [
        "numpy 1.26.4|1.26.5", "numpy=1.26|2", "numpy py310_0", "numpy >=1.26 py310_0", "numpy[version='>=1']",
        "numpy @ https://elsewhere.example/x.whl", "numpy; os_name == 'nt'", "numpy 1.26.4 --pre", "numpy 1 2 3",
        "numpy 1.26.4 ; os_name == 'nt'", "numpy-quaternion 1", "python 3.10|3.11",
    ],
)  # fmt: skip
def test_what_conda_says_and_an_index_cannot_becomes_no_other_name(folder: Folder, spec: str) -> None:
    environment = modelpack.open(folder(conda_yaml=CONDA.format(more=f'- "{spec}"\n', pip=""))).environment
    assert environment.dependencies == ("mlflow==3.17.2", f"conda::{spec}")
    with pytest.raises(EnvironmentMismatch) as info:
        wanted.requirements(environment)
    assert info.value.code == "requirement-refused"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("python=3.10.12", "3.10.12"),
        ("python==3.10.12", "3.10.12"),
        ("python=3.10", "3.10"),
        ("python=3.10.*", "3.10"),
        ("python 3.10", "3.10"),
        ("python 3.10.12 h955ad1f_0", "3.10.12"),
        ("conda-forge::python=3.10", "3.10"),
        ("conda-forge/linux-64::python=3.10.12=h955ad1f_0", "3.10.12"),
        ("python>=3.10,<3.11", "3.10"),
        ("python >=3.10, <3.11", "3.10"),
        ("python >3.9,<=3.11.4", "3.11"),
        ("python<3.11", "3.10"),
        ("python>=3.10", None),
        ("python", None),
        ("python=3", None),
    ],
)
def test_the_python_that_conda_is_asked_for_is_the_packages(folder: Folder, spec: str, expected: str | None) -> None:
    made = folder(conda_yaml=f"dependencies:\n- {spec}\n", MLmodel=MLMODEL.replace("    python_version: 3.11.7\n", ""))
    environment = modelpack.open(made).environment
    assert (environment.python.captured, environment.dependencies) == (expected, ())


REFUSED = {
    "an index": {"requirements_txt": "--index-url https://elsewhere.example/simple"},
    "another index": {"requirements_txt": "numpy\n--extra-index-url https://elsewhere.example/whl"},
    "an option behind a name": {"requirements_txt": "numpy==1 --index-url=https://elsewhere.example"},
    "an editable install": {"requirements_txt": "-e ."},
    "a file": {"requirements_txt": "tool @ file:///tmp/tool.whl"},
    "an address": {"requirements_txt": "tool @ https://example.org/tool-1.tar.gz"},
    "another file": {"requirements_txt": "-r other.txt"},
    "another file of constraints": {"requirements_txt": "-c other.txt", "constraints_txt": "numpy==1"},
    "constraints that are not there": {"requirements_txt": "-c constraints.txt"},
    "a constraint that is no pin": {"requirements_txt": "-c constraints.txt", "constraints_txt": "scipy<2"},
    "an option among constraints": {"requirements_txt": "-c constraints.txt", "constraints_txt": "--pre"},
    "a command": {"requirements_txt": "numpy; rm -rf /"},
    "a path": {"requirements_txt": "./tool.whl"},
    "an option of a line that goes on": {"requirements_txt": "numpy \\\n --pre"},
    "a long line": {"requirements_txt": "numpy" + " " * 300 + "--pre"},
    "an option in python_env.yaml": {"python_env_yaml": "python: 3.11.7\ndependencies:\n- --pre\n"},
    "an option in conda.yaml": {"conda_yaml": CONDA.format(more="", pip="  - --pre\n")},
    "what only conda has": {"conda_yaml": CONDA.format(more="- libgomp\n", pip="")},
}


@pytest.mark.parametrize("texts", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_plain_requirement_opens_and_is_never_given_to_an_installer(
    folder: Folder, texts: dict[str, str]
) -> None:
    package = modelpack.open(folder(**texts))
    calls: list[Callable[[], Any]] = [
        lambda: locking.lock(package.path, package.path.with_name("locked"), indexes=uv.Indexes(no_index=True)),
        lambda: locking.lock(package.path, package.path.with_name("locked"), partial=True),
        lambda: export.export(package, "requirements"),
        lambda: export.export(package, "dockerfile"),
    ]
    for call in calls:
        with pytest.raises(EnvironmentMismatch, match="is not a plain requirement") as info:
            call()
        assert info.value.code == "requirement-refused"
        assert info.value.path is not None and info.value.path.startswith("environment.dependencies[")


@pytest.mark.parametrize(
    "texts", [{"conda_yaml": "dependencies: numpy\n"}, {"python_env_yaml": "- 1\n"}, {"conda_yaml": "a: &x [*x]\n"}]
)
def test_documents_that_are_not_what_their_name_says_are_refused(folder: Folder, texts: dict[str, str]) -> None:
    with pytest.raises(PackageError) as info:
        modelpack.open(folder(**texts))
    assert info.value.code == "mlmodel-invalid"


def test_a_directory_is_locked_exported_and_built_like_a_package(
    folder: Folder, indexes: uv.Indexes, tmp_path: Path, command: Command
) -> None:
    made = folder(requirements_txt="tiny-twice==1.2\n", python_env_yaml=PYTHON_ENV)
    refused = command("env", "create", made)
    assert (refused.returncode, "lock-missing" in refused.stderr) == (1, True)
    assert "modelpack[mlflow]==" in export.export(modelpack.open(made), "dockerfile")
    assert command("env", "diff", made).stdout == "note: tiny-twice: saved with 1.2, here not installed\n"

    locked = locking.lock(made, tmp_path / "locked", indexes=indexes)

    assert (locked.path / "MLmodel").read_text() == MLMODEL
    built = cache.create(locked, indexes=indexes, allow_code=locked.digest)
    said = subprocess.run([built.python, "-c", "import tiny_twice; print(tiny_twice.twice(4))"], capture_output=True)
    assert said.stdout == b"8\n"


def test_lines_for_an_installer_are_not_shown_if_one_is_none(folder: Folder, command: Command) -> None:
    done = command("env", "show", folder(requirements_txt="numpy\n--pre"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "'--pre' is not a plain requirement" in done.stderr
