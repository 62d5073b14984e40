"""The prose of the specification: its examples are run, its tables compared, its links followed."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import modelpack
from modelpack.dtypes import ELEMENTS, DataType
from modelpack.errors import ManifestError
from modelpack.manifest import Manifest
from modelpack.signature import Signature

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "spec"
CHAPTERS = sorted(SPEC.glob("*.md"))
EXAMPLE = re.compile(r"(?:<!-- example: ([^\n]+) -->\n)?```json\n(.+?)```", re.DOTALL)
NO_FILES = f"sha256:{hashlib.sha256().hexdigest()}"


def manifest(**fields: Any) -> dict[str, Any]:
    """Return the smallest manifest, with other or more properties."""
    smallest = {"modelpack": "1.0", "name": "x", "version": "1", "flavors": [{"name": "x"}], "files": []}
    return {**smallest, "content_digest": NO_FILES, **fields}


def paths_in(value: Any) -> set[str]:
    """Return the paths that a fragment names, so that a manifest can list them."""
    named = {"input", "output", "entry", "path"}
    match value:
        case dict():
            here = {item for key, item in value.items() if key in named and isinstance(item, str)}
            return here.union(*map(paths_in, value.values()))
        case list():
            return set[str]().union(*map(paths_in, value))
    return set()


def completed(fragment: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the fragment's properties, and with the files and payloads that they name."""
    files = [{"path": path, "size": 0, "digest": NO_FILES, "role": "other"} for path in sorted(paths_in(fragment))]
    ids = {id_ for flavor in fragment.get("flavors", ()) for id_ in flavor.get("payloads", {}).values()}
    if ids:
        files.append({"path": "payload", "size": 0, "digest": NO_FILES, "role": "payload"})
    lines = sorted(f"{file['digest'][7:]}  {file['path']}\n" for file in files)
    lines.sort(key=lambda line: line[66:].encode())
    whole = manifest(files=files, content_digest=f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}")
    if ids:
        whole["payloads"] = {id_: {"format": "x", "files": ["payload"]} for id_ in sorted(ids)}
    return {**whole, **fragment}


def examples() -> list[Any]:
    return [
        pytest.param(path.name, mark, text, id=f"{path.name}-{number}")
        for path in CHAPTERS
        for number, (mark, text) in enumerate(EXAMPLE.findall(path.read_text("utf-8")))
    ]


@pytest.mark.parametrize(("chapter", "mark", "text"), examples())
def test_an_example_is_what_its_mark_says(chapter: str, mark: str, text: str, schema: Callable[[str], Any]) -> None:
    value = json.loads(text)
    kind, _, where = mark.partition(":")
    strict = schema("manifest-1.0").is_valid
    match kind:
        case "manifest":
            assert strict(value)
            Manifest.parse(text.encode())
        case "signature":
            assert strict(manifest(signature=value))
            Manifest.parse(json.dumps(manifest(signature=value)).encode())
            Signature.model_validate(value)
        case "type":
            column = {"name": "x", "type": value}
            assert strict(manifest(signature={"inputs": {"kind": "table", "columns": [column]}}))
            TypeAdapter(DataType).validate_python(value)
        case "fragment":
            assert strict(completed(value)) or value.get("modelpack", "1.0") != "1.0"
            Manifest.parse(json.dumps(completed(value)).encode())
        case "files":
            assert strict(completed(value))
        case "invalid":
            code, _, path = where.partition(":")
            whole = completed({"signature": value} if value.keys() & {"inputs", "outputs", "params"} else value)
            with pytest.raises(ManifestError) as caught:
                Manifest.parse(json.dumps(whole).encode())
            assert (code, path) == (caught.value.code, caught.value.path)
        case _:
            raise AssertionError(f"{chapter}: an example without a mark: {text}")


def test_an_example_of_a_type_can_be_wrong() -> None:
    """The check above is one that can fail."""
    with pytest.raises(ValidationError):
        TypeAdapter(DataType).validate_python({"kind": "timestamp"})


def test_the_table_of_element_types_is_the_one_in_the_code() -> None:
    text = (SPEC / "05-signature.md").read_text("utf-8")
    table = re.search(r"<!-- table: elements -->\n((?:\|.*\n)+)", text)
    assert table
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in table[1].splitlines()[2:]]
    assert rows == [
        [e.name, e.kind, str(e.bits), e.numpy, e.arrow or "-", e.json, e.mlflow or "-", e.oip or "-"]
        for e in ELEMENTS.values()
    ]


def block(chapter: str, mark: str) -> str:
    text = (SPEC / chapter).read_text("utf-8")
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_the_worked_example_of_the_content_digest_is_right(tmp_path: Path) -> None:
    lines = block("04-digests.md", "example: lines")
    (tmp_path / "a.txt").write_bytes(b"hello\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.bin").write_bytes(b"")
    printed = subprocess.run(["sha256sum", "a.txt", "data/b.bin"], cwd=tmp_path, capture_output=True, check=True)
    assert lines.encode() == printed.stdout
    stated = block("04-digests.md", "example: content-digest").strip()
    assert stated == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    files = json.loads(EXAMPLE.findall((SPEC / "04-digests.md").read_text("utf-8"))[0][1])["files"]
    Manifest.parse(json.dumps(manifest(files=files, content_digest=stated)).encode())
    assert f"these {len(lines)} bytes" in (SPEC / "04-digests.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["minimal", "odd-paths", "dotfiles", "files-in-any-order", "detached-signatures"])
def test_coreutils_compute_the_digests(name: str) -> None:
    root = SPEC / "vectors" / "valid" / name / "pkg"

    def run(mark: str) -> str:
        script = block("04-digests.md", f"recipe: {mark}")
        done = subprocess.run(["sh", "-c", script], cwd=root, capture_output=True, text=True, check=True)
        return f"sha256:{done.stdout[:64]}"

    package = modelpack.open(root)
    assert run("content") == package.manifest.content_digest
    assert run("package") == package.digest


def test_the_whole_manifest_is_the_vector_of_that_name() -> None:
    text = (SPEC / "03-manifest.md").read_text("utf-8").partition("## A whole manifest")[2]
    vector = SPEC / "vectors" / "valid" / "whole" / "pkg" / "modelpack.json"
    assert EXAMPLE.findall(text)[0][1].encode() == vector.read_bytes()
    assert json.loads(vector.read_bytes()).keys() == {"modelpack", *Manifest.model_fields}


def test_every_property_of_the_manifest_has_a_section_or_a_bullet() -> None:
    text = (SPEC / "03-manifest.md").read_text("utf-8")
    assert [name for name in Manifest.model_fields if f"- **`{name}`**" not in text] == []


def headings(path: Path) -> set[str]:
    found = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = SPEC / file if file else path
        assert place.exists(), target
        assert not anchor or anchor in headings(place), target


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_there_is_one_sentence_on_a_line(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith("|")]
    assert [line for line in lines if re.search(r"[a-z)`*]\. [A-Z`]", line)] == []


def test_the_source_cites_sections_that_exist() -> None:
    cited = set()
    for root in ("modelpack", "flavors", "server", "docs"):
        for path in (ROOT / root).rglob("*.*"):
            if path.suffix in (".py", ".md"):
                cited |= set(re.findall(r"spec/([\w-]+\.md)(?:#([\w-]+))?", path.read_text("utf-8")))
    assert ("05-signature.md", "") in cited
    wrong = [f"{file}#{anchor}" for file, anchor in cited if not (SPEC / file).exists()]
    wrong += [f"{f}#{a}" for f, a in cited if a and (SPEC / f).exists() and a not in headings(SPEC / f)]
    assert wrong == []
