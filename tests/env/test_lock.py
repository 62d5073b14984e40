"""Locks: written with hashes and no address of this machine, read as data."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import Pylock
from packaging.requirements import Requirement

import modelpack
from modelpack import trust
from modelpack.cli import main
from modelpack.environments import cache, export, locking, pylock, uv, wanted
from modelpack.errors import EnvironmentMismatch, TrustError
from modelpack.manifest import Environment, Lock, Python


def from_directory(wheels: Path) -> uv.Indexes:
    return uv.Indexes(find_links=(str(wheels),), no_index=True)


def test_a_lock_has_hashes_and_no_place_of_this_machine(package: modelpack.Package, wheels: Path) -> None:
    made = locking.lock(package.path, package.path.with_name("locked"), indexes=from_directory(wheels))

    (wheel,) = wheels.iterdir()
    raw = (made.path / "environment" / "pylock.toml").read_bytes()
    (one,) = tomllib.loads(raw.decode())["packages"]
    assert (one["name"], one["version"]) == ("tiny-twice", "1.2")
    (file,) = one["wheels"]
    assert file["hashes"] == {"sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    assert file["path"] == f"wheels/{wheel.name}"
    assert str(wheels).encode() not in raw and b"file:" not in raw
    Pylock.from_dict(tomllib.loads(raw.decode())).validate()


def test_a_locked_package_is_another_one_that_says_where_it_is_from(package: modelpack.Package, wheels: Path) -> None:
    made = locking.lock(package.path, package.path.with_name("locked"), indexes=from_directory(wheels))

    assert made.digest != package.digest
    assert made.manifest.provenance["derived_from"]["digest"] == package.digest
    assert made.manifest.provenance["derived_from"]["change"] == "lock"
    assert [(one.kind, one.path) for one in made.environment.locks] == [("pylock", "environment/pylock.toml")]
    assert trust.default_store().allows(made.digest)
    modelpack.open(made.path)


def asking(package: modelpack.Package, **fields: Any) -> modelpack.Package:
    """Return the package as if it had been saved with this environment."""
    environment = Environment(python=package.environment.python, **fields)
    return locking.rewrite(package, None, lambda _: None, environment, change="lock", grant=True)


def test_nothing_to_install_is_a_valid_lock_of_nothing(plain: modelpack.Package, wheels: Path) -> None:
    made = locking.lock(asking(plain).path, indexes=from_directory(wheels))

    raw = (made.path / "environment" / "pylock.toml").read_text()
    Pylock.from_dict(tomllib.loads(raw)).validate()
    assert locking.pins(made)[0] == []
    assert list(cache.create(made).path.glob("lib/python*/site-packages/*.dist-info")) == []


def test_what_is_asked_for_and_was_never_installed_is_locked(plain: modelpack.Package, wheels: Path) -> None:
    made = locking.lock(asking(plain, dependencies=("tiny-twice",)).path, indexes=from_directory(wheels))

    assert [(one.name, one.version) for one in locking.pins(made)[0]] == [("tiny-twice", "1.2")]


def test_a_partial_lock_keeps_the_markers_of_what_was_captured(plain: modelpack.Package) -> None:
    made = asking(
        plain,
        captured={"pywin32": "306", "click": "8.1.0", "attrs": "1"},
        dependencies=("pywin32; sys_platform == 'win32'", "pandas; os_name == 'nt'", "click; os_name == 'posix'"),
    )

    pins, _ = locking.pins(locking.lock(made.path, partial=True))
    assert {one.name: one.marker for one in pins} == {
        "pywin32": 'sys_platform == "win32"',
        "click": 'os_name == "posix"',
        "attrs": None,
    }


def test_what_something_needed_here_brings_along_is_pinned_here(plain: modelpack.Package) -> None:
    made = asking(plain, captured={"joblib": "1.5.0"}, dependencies=("joblib; sys_platform == 'win32'", "scikit-learn"))

    pins, _ = locking.pins(locking.lock(made.path, partial=True))
    assert {one.name: (one.version, one.marker) for one in pins}["joblib"] == ("1.5.0", None)


def test_several_markers_of_one_distribution_are_alternatives() -> None:
    texts = ("x>1; os_name == 'a'", "x>1; os_name == 'b' and python_version > '3'", "y; os_name == 'a'", "y")
    pins = wanted.pinned(Environment(captured={"X": "2", "y": "1"}, dependencies=texts))
    assert [one.marker for one in pins] == ['os_name == "a" or (os_name == "b" and python_version > "3")', None]


def test_locking_again_replaces_the_lock(package: modelpack.Package, wheels: Path) -> None:
    locking.lock(package.path, partial=True)
    made = locking.lock(package.path, indexes=from_directory(wheels))

    assert [one.kind for one in made.environment.locks] == ["pylock"]
    assert [file.path for file in made.manifest.files if file.role == "environment"] == ["environment/pylock.toml"]


def test_a_partial_lock_asks_nobody_and_says_that_it_is_one(package: modelpack.Package) -> None:
    made = locking.lock(package.path, package.path.with_name("locked"), partial=True)

    pins, lock = locking.pins(made)
    assert lock.kind == "requirements"
    assert [(one.name, one.version, one.hashes) for one in pins] == [("tiny-twice", "1.2", ())]
    assert made.manifest.provenance["derived_from"]["change"] == "partial-lock"


def test_a_version_that_is_not_to_be_had_is_named(package: modelpack.Package, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnvironmentMismatch, match="tiny-twice") as info:
        locking.lock(package.path, indexes=from_directory(tmp_path / "empty"))
    assert info.value.code == "version-missing"


def test_a_version_that_was_withdrawn_is_locked_only_at_the_users_word(
    package: modelpack.Package, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = wheels.iterdir()
    page = tmp_path / "simple" / "tiny-twice" / "index.html"
    page.parent.mkdir(parents=True)
    address = f"{wheel.as_uri()}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    page.write_text(f'<!DOCTYPE html><a href="{address}" data-yanked="wrong sums">{wheel.name}</a>')
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "simple").as_uri())

    with pytest.raises(EnvironmentMismatch, match=r"withdrawn tiny-twice==1\.2 \(wrong sums\)") as info:
        locking.lock(package.path)
    assert info.value.code == "version-yanked"
    assert modelpack.open(package.path).digest == package.digest

    (pin,) = locking.pins(locking.lock(package.path, yanked=True))[0]
    assert (pin.name, pin.version) == ("tiny-twice", "1.2")


def test_what_was_withdrawn_and_never_captured_is_told_as_such(
    plain: modelpack.Package, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (wheel,) = wheels.iterdir()
    page = tmp_path / "simple" / "tiny-twice" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<!DOCTYPE html><a href="{wheel.as_uri()}" data-yanked="wrong sums">{wheel.name}</a>')
    monkeypatch.setenv("UV_DEFAULT_INDEX", (tmp_path / "simple").as_uri())

    with pytest.raises(EnvironmentMismatch, match=r"tiny-twice==1\.2 was yanked \(reason: wrong sums\)") as info:
        locking.lock(asking(plain, dependencies=("tiny-twice",)).path)
    assert info.value.code == "version-yanked"


@pytest.fixture
def refusing() -> Iterator[str]:
    """Serve an index that answers with the status its address begins with, and yield the address without a scheme."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("status", [401, 403])
def test_an_index_that_refuses_is_said_without_the_key(
    package: modelpack.Package, refusing: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://me:s3cret@{refusing}/{status}")
    with pytest.raises(EnvironmentMismatch, match="refuses you") as info:
        locking.lock(package.path)
    assert info.value.code == "index-refused"
    assert "s3cret" not in f"{info.value.message} {info.value.hint}"


def test_what_is_built_to_be_locked_is_allowed_first(
    package: modelpack.Package,
    wheels: Path,
    make_sdist: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in wheels.iterdir():
        path.unlink()
    make_sdist(wheels, tmp_path / "ran")
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "stranger"))

    with pytest.raises(TrustError, match="builds it") as info:
        locking.lock(package.path, indexes=from_directory(wheels), builds=True)
    assert info.value.code == "code-not-allowed"
    assert not (tmp_path / "ran").exists()

    with pytest.raises(EnvironmentMismatch):
        locking.lock(package.path, indexes=from_directory(wheels), builds=True, allow_code=package.digest)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://files.example.org/a/x.whl", "https://files.example.org/a/x.whl"),
        ("https://me:token@wheels.example.org:8443/x.whl?key=1#f", "https://wheels.example.org:8443/x.whl"),
        ("http://files.example.org/x.whl", None),
        ("https://localhost/x.whl", None),
        ("https://127.0.0.1/x.whl", None),
        ("https://mirror.internal/x.whl", None),
        ("file:///home/me/x.whl", None),
        (None, None),
    ],
)
def test_only_public_addresses_are_kept(url: str | None, expected: str | None) -> None:
    assert pylock.public(url) == expected


def one(**changes: Any) -> bytes:
    entry = {"name": "x", "version": "1", "file": "x-1-py3-none-any.whl", "sha": "0" * 64, "more": ""} | changes
    return (
        f'lock-version = "1.0"\n[[packages]]\nname = {json.dumps(entry["name"])}\n'
        f"version = {json.dumps(entry['version'])}\n{entry['more']}\n"
        f"wheels = [{{ name = {json.dumps(entry['file'])}, url = 'https://a.b/x', "
        f"hashes = {{ sha256 = '{entry['sha']}' }} }}]\n"
    ).encode()


def test_a_lock_is_read_back_as_pins() -> None:
    (pin,) = pylock.read(one(name="My_Thing", version="1.0+cpu", more="marker = \"os_name == 'posix'\""), "lock")
    assert pin.line() == f'my-thing==1.0+cpu ; os_name == "posix" --hash=sha256:{"0" * 64}'


@pytest.mark.parametrize(
    ("marker", "needed"),
    [
        ("'x' in extras", False),
        ("'x' not in extras", True),
        ("'x' in dependency_groups", False),
        ("'x' in extras and os_name == 'posix'", False),
        ("'x' in extras or os_name == 'posix'", True),
        ("os_name == 'posix' and ('x' in extras or 'y' not in dependency_groups)", True),
        ("os_name != ' in extras' and platform_system != ' in extras'", True),
    ],
)
def test_no_extras_of_a_lock_are_chosen(marker: str, needed: bool) -> None:
    (pin,) = pylock.read(one(more=f"marker = {json.dumps(marker)}"), "lock")
    assert wanted.holds(pin) is needed
    assert Requirement(f"x ; {pin.marker}").marker is not None


def named(package: modelpack.Package, raw: bytes, **fields: Any) -> modelpack.Package:
    """Return the package with this lock and this Python."""
    environment = Environment(
        python=Python(captured=package.environment.python.captured, **fields),
        locks=(Lock(kind="pylock", path="environment/pylock.toml"),),
    )

    def fill(directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "pylock.toml").write_bytes(raw)

    return locking.rewrite(package, None, fill, environment, change="lock", grant=True)


@pytest.mark.parametrize(
    ("raw", "fields", "path"),
    [
        (one(), {"requires": ">=3.99"}, "environment.python.requires"),
        (one(), {"requires": "nonsense"}, "environment.python.requires"),
        (b"requires-python = '>=3.99'\n" + one(), {}, "environment/pylock.toml: requires-python"),
        (one(more="requires-python = '<3'"), {}, "environment/pylock.toml: packages[0].requires-python"),
    ],
)
def test_an_environment_is_built_only_with_a_python_that_the_lock_is_for(
    plain: modelpack.Package, raw: bytes, fields: dict[str, str], path: str
) -> None:
    package = named(plain, raw, **fields)
    with pytest.raises(EnvironmentMismatch, match="it is for Python") as info:
        cache.create(package)
    assert (info.value.code, info.value.path) == ("python-unavailable", path)
    assert export.export(package, "requirements") == f"x==1 --hash=sha256:{'0' * 64}\n"


def test_a_package_for_another_machine_may_be_for_another_python(plain: modelpack.Package) -> None:
    raw = b"requires-python = '>=3.11'\n" + one(more="requires-python = '<3'\nmarker = \"os_name == 'nt'\"")
    assert [pin.name for pin in locking.pins(named(plain, raw, requires=">=3.11"))[0]] == ["x"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff", "lock-invalid"),
        (b"packages = 3", "lock-invalid"),
        (b'lock-version = "2.0"', "lock-invalid"),
        (b"requires-python = 3\n" + one(), "lock-invalid"),
        (one(more="requires-python = 3"), "lock-invalid"),
        (one(name="--index-url=https://evil.example"), "requirement-refused"),
        (one(name="x @ https://evil.example/x.whl"), "requirement-refused"),
        (one(name="x\n--extra-index-url y"), "requirement-refused"),
        (one(name="x[extra]"), "requirement-refused"),
        (one(name="x-1-py3-none-any.whl"), "requirement-refused"),
        (one(name="x-1.Tar.Gz"), "requirement-refused"),
        (one(version="1 --hash=sha256:00"), "requirement-refused"),
        (one(more="marker = \"os_name == 'a' --hash=x\""), "requirement-refused"),
        (one(more=r"""marker = 'os_name != "a\n--extra-index-url=https://evil.example"'"""), "requirement-refused"),
        (one(more=r"""marker = 'os_name != "\x1b[2J"'"""), "requirement-refused"),
        (one(more=r"""marker = 'os_name != "both \x27 and \x22"'"""), "requirement-refused"),
        (one(more=f"marker = \"{'(' * 9999}os_name == 'a'{')' * 9999}\""), "requirement-refused"),
        (one(file="../../x.whl"), "lock-invalid"),
        (one(sha="0"), "lock-invalid"),
        (one(more="vcs = { type = 'git', url = 'x', commit-id = 'y' }"), "lock-invalid"),
        (b'lock-version = "1.0"\n[[packages]]\nname = "x"\nversion = "1"\n', "lock-invalid"),
    ],
)
def test_a_lock_that_is_no_plain_one_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(EnvironmentMismatch) as info:
        pylock.read(raw, "lock")
    assert info.value.code == code


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "--index-url=https://evil.example",
        "x @ file:///etc/passwd",
        "x==1 --hash=sha256:0",
        "x>1",
        "x-1.whl==1",
    ],
)
def test_options_in_a_partial_lock_are_refused(line: str) -> None:
    with pytest.raises(EnvironmentMismatch) as info:
        pylock.read_requirements(f"fine==1\n{line}\n".encode(), "lock")
    assert (info.value.code, info.value.path) == ("requirement-refused", "lock: line 2")


@pytest.mark.parametrize(
    "text",
    [
        "-r other.txt",
        "x @ https://evil.example/x.whl",
        "--pre",
        "x; nonsense",
        "a b",
        r"x; os_name != 'a\n--extra-index-url=https://evil.example'",
        r"x; os_name != '\x1b[2J'",
        r"x; os_name != 'both \x27 and \x22'",
        "x; os_name != 'a\n'",
        "x-1-py3-none-any.whl",
        "X-1-py3-none-any.WHL[extra] ; os_name == 'posix'",
        "x-1.zip>=0",
        "x-1.tar.gz",
        "x-1.tgz",
        "x-1.tar.bz2",
        "x-1.tar.xz",
    ],
)
def test_options_in_dependencies_are_refused(text: str) -> None:
    with pytest.raises(EnvironmentMismatch) as info:
        wanted.requirements(Environment(dependencies=("fine", text)))
    assert (info.value.code, info.value.path) == ("requirement-refused", "environment.dependencies[1]")


def test_what_came_from_no_index_cannot_be_locked() -> None:
    with pytest.raises(EnvironmentMismatch, match="editable") as info:
        wanted.constraints(Environment(captured={"mine": "1"}, origins={"mine": "editable"}))
    assert info.value.code == "origin-local"


def test_the_command_says_what_it_locked(package: modelpack.Package, wheels: Path) -> None:
    from click.testing import CliRunner

    arguments = ["env", "lock", str(package.path), "--find-links", str(wheels), "--no-index"]
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, "--in-place" in refused.output) == (2, True)
    done = CliRunner().invoke(main, [*arguments, "--in-place", "--json"])
    facts = json.loads(done.output)
    assert facts["digest"] == modelpack.open(package.path).digest
    assert facts["lock"] == {"path": "environment/pylock.toml", "kind": "pylock", "partial": False, "packages": 1}
