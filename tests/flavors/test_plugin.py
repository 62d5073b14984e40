"""A flavor of another distribution: the one that docs/plugins.md builds, installed and used in processes of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "tests" / "plugin_example"
PAGE = ROOT / "docs" / "plugins.md"
FILES = (
    "lookup_table/__init__.py",
    "lookup_table/payload.py",
    "lookup_table/flavor.py",
    "pyproject.toml",
    "example.py",
)
# As a plug-in of ours would be installed beside it: a distribution is its metadata.
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pages() -> ModuleType:
    """Return the module that follows the pages of docs/."""
    name = "follow_pages"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "docs" / "test_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their annotations
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh place with the example in it, built and installed by pip without a network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", folder / "site", folder / "source"],
        check=True,
        timeout=120,
    )
    return folder / "site"


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Path:
    """A copy of that place, to change."""
    return Path(shutil.copytree(installed, tmp_path / "site"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in an empty directory with the distributions in a place."""
    work = tmp_path / "work"
    work.mkdir()

    def run(place: Path | None, *command: str, exits: int = 0) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "PYTHONPATH": str(place) if place else ""}
        program = [sys.executable, "-c", command[1]] if command[0] == "python" else [sys.executable, "-m", *command]
        done = subprocess.run(program, cwd=work, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == exits, done.stdout + done.stderr
        return done

    return run


SAVE = (EXAMPLE / "example.py").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def towns(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package that the example saves, made once."""
    folder = tmp_path_factory.mktemp("towns")
    environ = {**os.environ, "PYTHONPATH": str(installed), "MODELPACK_TRUST_STORE": str(folder / "trust")}
    subprocess.run([sys.executable, "-c", SAVE], cwd=folder, env=environ, check=True, capture_output=True, timeout=120)
    return folder / "towns"


@pytest.fixture
def saved(towns: Path, run: Run, tmp_path: Path) -> None:
    """Put a copy of that package where commands are run."""
    shutil.copytree(towns, tmp_path / "work" / "towns")


def offers(site: Path, text: str, name: str = "lookup_table") -> None:
    """Make a distribution offer these entry points, and no others."""
    folder = site / f"{name}-1.0.dist-info"
    if not folder.exists():
        folder.mkdir()
        (folder / "METADATA").write_text(METADATA.format(name=name.replace("_", "-")))
    (folder / "entry_points.txt").write_text(text)


FLAVOR = "[modelpack.flavors]\nlookup = lookup_table.flavor:FLAVOR\n"
AUDIT = "[modelpack.audits]\nlookup-json = lookup_table.payload:audit\n"


@pytest.mark.parametrize("name", FILES)
def test_the_page_shows_the_files_that_are_tested(name: str) -> None:
    kind = "toml" if name.endswith(".toml") else "python"
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    assert f"`{name}`\n\n```{kind}\n{text}```" in PAGE.read_text(encoding="utf-8")


def test_the_page_shows_all_files() -> None:
    found = {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.rglob("*") if path.is_file()}
    assert {name for name in found if "__pycache__" not in name} == set(FILES)


@pytest.fixture
def reader(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A reader of the page who has installed the example."""
    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if shutil.which("curl") is None:
        curl = tmp_path / "programs" / "curl"
        curl.parent.mkdir()
        curl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/scripts/curl.py" "$@"\n')
        curl.chmod(0o755)
        programs.insert(0, str(curl.parent))
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    work = Path(shutil.copytree(EXAMPLE, tmp_path / "reader", ignore=shutil.ignore_patterns("__pycache__")))
    reader = pages().Reader(page="docs/plugins.md", folder=work)
    yield reader
    reader.close()


@pytest.mark.slow
def test_what_the_page_says_is_what_happens(reader: Any) -> None:
    """Saving, inspecting, verifying, testing, scoring a file, and a real request over HTTP."""
    blocks = [block for block in pages().blocks(PAGE.read_text(encoding="utf-8")) if block.kind == "console"]
    for block in blocks:
        reader.follow(block)
    assert sum(not block.skipped for block in blocks) == 2


def test_data_needs_no_grant(installed: Path, run: Run, trust_store: Path) -> None:
    run(installed, "python", SAVE)
    assert not trust_store.exists()  # nothing was granted, because nothing is code
    code = "import modelpack; print(modelpack.load('towns').predict([{'city': 'Oslo'}]))"
    assert run(installed, "python", code).stdout == "{'answer': [709.0]}\n"


@pytest.mark.usefixtures("saved")
def test_the_audit_is_asked_before_the_flavor_is_imported(installed: Path, run: Run) -> None:
    code = (
        "import sys, modelpack\n"
        "print(modelpack.open('towns').plan().chosen.trust)\n"
        "print([name for name in ('lookup_table.payload', 'lookup_table.flavor') if name in sys.modules])"
    )
    assert run(installed, "python", code).stdout == "data\n['lookup_table.payload']\n"


def test_without_an_audit_it_needs_a_grant(site: Path, run: Run, trust_store: Path) -> None:
    offers(site, FLAVOR)
    run(site, "python", SAVE)
    run(site, "modelpack", "test", "towns")  # one's own package: saving granted it
    shutil.rmtree(trust_store)
    refused = run(site, "modelpack", "test", "towns", exits=1)
    assert "the format lookup-json: no audit says what the flavor lookup can run" in refused.stderr
    assert "Nothing was run [code-not-allowed]" in refused.stderr
    code = (
        "import sys, modelpack\n"
        "package = modelpack.open('towns')\n"
        "print(package.plan().candidates[0].trust, 'lookup_table' in sys.modules)\n"
        "print(modelpack.load(package, allow_code=package.digest).predict([{'city': 'Oslo'}]))"
    )
    assert run(site, "python", code).stdout == "code False\n{'answer': [709.0]}\n"


@pytest.mark.usefixtures("saved")
def test_where_it_is_not_installed_the_flavor_is_named(run: Run) -> None:
    run(None, "modelpack", "verify", "towns")
    assert "no installed flavor is called lookup" in run(None, "modelpack", "inspect", "towns").stdout
    refused = run(None, "modelpack", "test", "towns", exits=1)
    assert "no installed flavor is called lookup" in refused.stderr
    assert "[flavor-unavailable]" in refused.stderr


@pytest.mark.usefixtures("saved")
def test_an_audit_alone_loads_nothing(site: Path, run: Run) -> None:
    offers(site, AUDIT)
    assert "no installed flavor is called lookup" in run(site, "modelpack", "test", "towns", exits=1).stderr


SPOILED = "import pathlib; p = pathlib.Path('towns/payloads/native/table.json'); p.write_text({text!r})"
# What a stranger's package with another payload would have for its manifest.
RENEWED = """
import hashlib, json, pathlib
root = pathlib.Path('towns')
manifest = json.loads((root / 'modelpack.json').read_text())
for file in manifest['files']:
    raw = (root / file['path']).read_bytes()
    file['size'], file['digest'] = len(raw), 'sha256:' + hashlib.sha256(raw).hexdigest()
lines = sorted((file['path'], file['digest'][7:]) for file in manifest['files'])
text = ''.join(f'{digest}  {path}\\n' for path, digest in lines)
manifest['content_digest'] = 'sha256:' + hashlib.sha256(text.encode()).hexdigest()
(root / 'modelpack.json').write_text(json.dumps(manifest))
"""


@pytest.mark.parametrize(
    "text", ["{}", "nothing", "[" * 100_000, '{"column": "a", "answers": {"b": 1}, "otherwise": 1.0}']
)
@pytest.mark.usefixtures("saved")
def test_what_its_audit_refuses_is_refused(installed: Path, run: Run, text: str) -> None:
    run(installed, "python", SPOILED.format(text=text) + RENEWED)
    run(installed, "modelpack", "verify", "towns")
    refused = run(installed, "modelpack", "test", "towns", exits=1)
    assert re.search(r"table\.json: no lookup table: .+ \[payload-invalid\]", refused.stderr)


def test_an_audit_for_one_of_our_formats_is_never_asked(site: Path, run: Run) -> None:
    (site / "liar.py").write_text(
        "from modelpack.audits import Audit\ndef audit(files, entry):\n    raise SystemExit('asked')\n"
    )
    offers(site, "[modelpack.audits]\ncloudpickle = liar:audit\npickle = liar:audit\nskops = liar:audit\n", "liar")
    code = (
        "import modelpack, sys\n"
        "package = modelpack.save(lambda rows: [1 for row in rows], 'one', example=[{'x': 1}])\n"
        "print(package.plan().chosen.trust, 'liar' in sys.modules)"
    )
    assert run(site, "python", code).stdout == "code False\n"


def test_a_flavor_of_one_of_our_names_is_an_error_and_never_imported(site: Path, run: Run) -> None:
    (site / "liar.py").write_text("raise SystemExit('imported')")
    offers(site, "[modelpack.flavors]\nsklearn = liar:FLAVOR\n", "liar")
    refused = run(site, "python", SAVE, exits=1).stderr
    assert "two installed distributions offer the flavor 'sklearn'" in refused
    assert "modelpack_flavors.sklearn:FLAVOR and liar:FLAVOR" in refused


@pytest.mark.usefixtures("saved")
def test_two_offers_for_one_name_are_an_error(site: Path, run: Run) -> None:
    offers(site, AUDIT.replace("payload:audit", "payload:another"), "second_table")
    refused = run(site, "modelpack", "test", "towns", exits=1).stderr
    assert "several installed audits are for the payload format 'lookup-json'" in refused
    assert "lookup_table.payload:another, lookup_table.payload:audit" in refused
    assert "[audit-duplicate]" in refused
    offers(site, FLAVOR.replace("FLAVOR", "OTHER"), "second_table")
    refused = run(site, "modelpack", "test", "towns", exits=1).stderr
    assert "two installed distributions offer the flavor 'lookup'" in refused
    assert "[flavor-duplicate]" in refused


@pytest.mark.usefixtures("saved")
def test_a_flavor_that_cannot_be_imported_is_named(site: Path, run: Run) -> None:
    (site / "lookup_table" / "flavor.py").write_text("import no_such_library")
    refused = run(site, "modelpack", "test", "towns", exits=1).stderr
    assert "the flavor 'lookup' at lookup_table.flavor:FLAVOR cannot be imported: ModuleNotFoundError" in refused
    assert "[flavor-invalid]" in refused
