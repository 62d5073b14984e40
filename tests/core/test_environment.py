from __future__ import annotations

import platform

import pytest

from modelpack import environment, installed
from modelpack.errors import EnvironmentMismatch, SaveError
from modelpack.manifest import Environment, Python

NUMPY = installed.version("numpy")
assert NUMPY is not None


def saved(**versions: str) -> Environment:
    return Environment(captured=versions, critical=("numpy",))


def test_capture_records_what_is_installed() -> None:
    env = environment.capture(["numpy", "not-installed-here"], ["packaging>=20", "not-there; python_version > '2'"])
    assert env.captured == {"numpy": NUMPY, "packaging": installed.version("packaging")}
    assert env.critical == ("numpy",)
    assert env.dependencies == ("not-there; python_version > '2'", f"numpy=={NUMPY}", "packaging>=20")
    assert env.python.captured == platform.python_version()
    assert env.platform.os == "linux"


def test_the_callers_own_range_wins() -> None:
    assert environment.capture(["numpy"], ["NumPy>=1"]).dependencies == ("NumPy>=1",)


@pytest.mark.parametrize(
    ("requires", "dependencies", "expected"),
    [
        (["numpy>=1"], [], [f"numpy=={NUMPY}"]),
        (["click>=8", "click>=7", "click>=8"], [], ["click>=8", "click>=7", f"numpy=={NUMPY}"]),
        (["packaging>=20"], ["packaging<99"], [f"numpy=={NUMPY}", "packaging<99"]),
        (
            [],
            ["numpy>=2; sys_platform == 'linux'", "NumPy>=1; sys_platform == 'win32'"],
            ["numpy>=2; sys_platform == 'linux'", "NumPy>=1; sys_platform == 'win32'"],
        ),
        ([], ["numpy>=1; sys_platform == 'win32'"], [f"numpy=={NUMPY}", "numpy>=1; sys_platform == 'win32'"]),
    ],
)
def test_no_requirement_of_several_is_lost(requires: list[str], dependencies: list[str], expected: list[str]) -> None:
    env = environment.capture(["numpy"], dependencies, requires=requires)
    assert list(env.dependencies) == expected


def test_capture_is_the_same_each_time() -> None:
    assert environment.capture(["packaging", "numpy"]) == environment.capture(["numpy", "packaging"])


def test_what_is_no_requirement_is_refused() -> None:
    with pytest.raises(SaveError) as info:
        environment.capture([], ["fine", "--index-url=elsewhere"])
    assert (info.value.code, info.value.path) == ("dependency-invalid", "dependencies[1]")


@pytest.mark.parametrize("text", ["x-1-py3-none-any.whl", "x-1.tar.gz[all]>=1", "X.ZIP; os_name == 'nt'"])
def test_a_name_that_installers_take_for_a_file_is_refused(text: str) -> None:
    with pytest.raises(SaveError, match="addresses and paths are not put into packages") as info:
        environment.capture([], [text])
    assert (info.value.code, info.value.path) == ("dependency-invalid", "dependencies[0]")


@pytest.mark.parametrize("text", ["zc.recipe.egg", "tarball", "x-zip", "x.whlx"])
def test_other_names_with_dots_and_hyphens_are_names(text: str) -> None:
    assert environment.capture([], [text]).dependencies == (text,)


def test_the_same_environment_has_no_differences() -> None:
    assert environment.compare(environment.capture(["numpy", "packaging"])) == []


@pytest.mark.parametrize(
    ("versions", "severity"),
    [
        ({"numpy": "0.1"}, "error"),
        ({"numpy": "not a version"}, "error"),
        ({"numpy": NUMPY.rpartition(".")[0] + ".999"}, "note"),
        ({"packaging": "0.1"}, "note"),
        ({"absent": "1.0"}, "note"),
    ],
)
def test_only_critical_packages_of_another_series_are_errors(versions: dict[str, str], severity: str) -> None:
    (difference,) = environment.compare(saved(**versions))
    assert difference.severity == severity


@pytest.mark.parametrize(
    ("dependencies", "count"),
    [
        (["Absent; sys_platform == 'win32'"], 0),
        (["absent; sys_platform == 'win32'", "absent==1; os_name == 'nt'"], 0),
        (["absent; sys_platform == 'win32'", "absent; os_name == 'posix'"], 1),
        (["absent; sys_platform == 'win32'", "absent"], 1),
        (["absent; sys_platform", "absent; os_name ~= 'x'"], 1),
        ([], 1),
    ],
)
def test_what_is_asked_for_on_other_machines_only_is_not_missing(dependencies: list[str], count: int) -> None:
    env = Environment(captured={"absent": "1"}, critical=("absent",), dependencies=tuple(dependencies))
    assert [d.severity for d in environment.compare(env)] == ["error"] * count


def test_a_missing_critical_package_says_what_to_install() -> None:
    env = Environment(captured={"absent": "1.2+local"}, critical=("absent",))
    with pytest.raises(EnvironmentMismatch, match=r"saved with 1\.2\+local, .* pip install 'absent==1\.2'") as info:
        environment.require(environment.compare(env))
    assert info.value.code == "environment-mismatch"
    assert "not installed" in info.value.message


@pytest.mark.parametrize(("requires", "fits"), [(">=3.11", True), ("==2.7.*", False), ("no specifier", False)])
def test_python_must_be_in_range(requires: str, fits: bool) -> None:
    found = environment.compare(Environment(python=Python(requires=requires)))
    assert (found == []) is fits
    if not fits:
        with pytest.raises(EnvironmentMismatch, match="Use the Python it needs"):
            environment.require(found)


def test_notes_do_not_stop_anything() -> None:
    environment.require(environment.compare(saved(packaging="0.1")))


@pytest.mark.parametrize(
    ("name", "version"), [("numpy", "0.1'; touch pwned; '"), ("no'; touch pwned; '", "1.0"), ("-r", "1"), ("a b", "1")]
)
def test_no_hint_holds_what_a_stranger_wrote_for_the_shell(name: str, version: str) -> None:
    wanted = environment.Difference(name=name, wanted=version, found=None, severity="error")
    with pytest.raises(EnvironmentMismatch) as info:
        environment.require([wanted])
    assert "pip install" not in info.value.hint
    assert "pwned" not in info.value.hint
