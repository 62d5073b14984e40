"""What `pip install modelpack` gives: few distributions, three packages, one door, and an import that does nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = 20
PACKAGES = ["modelpack", "modelpack_flavors", "modelpack_server"]

# What `import modelpack` must not bring in: frameworks, data libraries, the server, and slow things of the
# standard library's size.
HEAVY = {
    "click",
    "cloudpickle",
    "joblib",
    "modelpack_flavors",
    "modelpack_server",
    "orjson",
    "pandas",
    "pyarrow",
    "scipy",
    "skops",
    "sklearn",
    "starlette",
    "tqdm",
    "uvicorn",
}


def required(name: str, extras: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the distributions that one brings along here, with the extras it asks for."""
    for line in importlib.metadata.requires(name) or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def closure(name: str) -> set[str]:
    """Return the names of everything that `pip install NAME` installs, itself included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, frozenset[str]())]
    while todo:
        item = todo.pop()
        if item not in seen:
            seen.add(item)
            todo.extend(required(*item))
    return {name for name, _ in seen}


def fresh_python(code: str) -> str:
    """Return what a new interpreter prints for the code."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def test_a_plain_install_brings_at_most_twenty_distributions():
    names = closure("modelpack")

    assert {"modelpack", "numpy", "pydantic-core"} <= names  # the walk follows requirements of requirements
    assert len(names) <= DISTRIBUTIONS, sorted(names)


def test_a_plain_install_brings_no_framework():
    assert not closure("modelpack") & {"pandas", "scikit-learn", "torch", "mlflow", "skops", "scipy"}


def test_all_is_every_extra():
    extras = set(importlib.metadata.metadata("modelpack").get_all("Provides-Extra") or ())
    each = {name for extra in extras - {"all"} for name, _ in required("modelpack", frozenset({extra}))}
    every = {name for name, _ in required("modelpack", frozenset({"all"}))}

    assert each <= every
    assert "scikit-learn" in every


def test_importing_modelpack_imports_no_framework_no_server_and_no_data_library():
    out = fresh_python("import modelpack, sys; print(*{name.partition('.')[0] for name in sys.modules})")

    assert "modelpack" in out.split()
    assert sorted(HEAVY & set(out.split())) == []


def test_help_imports_no_framework_no_server_and_no_data_library():
    out = fresh_python(
        "import sys\n"
        "from modelpack.cli import main\n"
        "sys.argv = ['modelpack', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as exit:\n"
        "    assert not exit.code, exit.code\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    modules = set(out.rpartition("MODULES")[2].split())

    assert "modelpack" in modules
    assert sorted((HEAVY - {"click"}) & modules) == []


def test_the_door_lists_what_it_opens():
    door = importlib.import_module("modelpack")
    names = door.__all__

    assert list(names) == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(door, name) is not None or name == "__version__"
    public = {name for name in dir(door) if not name.startswith("_")}
    modules = {name for name in public if getattr(getattr(door, name), "__name__", "") == f"modelpack.{name}"}
    helpers = {"annotations", "importlib", "TYPE_CHECKING", "Any"}
    assert public - modules - helpers == {name for name in names if not name.startswith("_")} - modules


@pytest.mark.parametrize("name", ["Model", "Package", "Signature", "infer_signature", "load", "open", "save"])
def test_the_door_offers(name: str):
    assert name in importlib.import_module("modelpack").__all__


def test_the_version_is_the_distributions():
    assert importlib.import_module("modelpack").__version__ == importlib.metadata.version("modelpack")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the sources make."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}

    assert sorted(name for name in tops if not name.endswith(".dist-info")) == PACKAGES


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path):
    roots = [ROOT / "modelpack", ROOT / "flavors", ROOT / "server"]
    sources = {
        path.relative_to(root).as_posix()
        for root in roots
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert packed == sources


def test_the_wheel_carries_the_licence(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        licence = next(name for name in archive.namelist() if name.endswith("/LICENSE"))
        text = archive.read(licence).decode()

    assert "Apache License" in text
