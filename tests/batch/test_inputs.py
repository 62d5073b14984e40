"""Which files are scored, in which order."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from modelpack.errors import UsageError
from modelpack_server.batch import formats, inputs


def names(found: list[inputs.Source], root: Path) -> list[str]:
    return [str(source.path.relative_to(root)) for source in found if source.path]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.csv",
        "a.parquet",
        "sub/c.jsonl",
        "sub/.hidden.csv",
        "_tmp/d.csv",
        "notes.txt",
        "z.csv.gz",
        ".x.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "format_", "packed"),
    [
        ("a.csv", "csv", False),
        ("a.CSV", "csv", False),
        ("a.csv.gz", "csv", True),
        ("a.jsonl", "jsonl", False),
        ("a.ndjson.gz", "jsonl", True),
        ("a.parquet", "parquet", False),
        ("a.arrow", "arrow", False),
        ("a.feather", "arrow", False),
        ("a.arrows", "arrows", False),
    ],
)
def test_the_suffix_tells_the_format(name: str, format_: str, packed: bool) -> None:
    assert formats.of(PurePath(name)) == formats.Kind(format=format_, gzip=packed)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.parquet.gz", ".csv.bak"])
def test_other_names_tell_nothing(name: str) -> None:
    assert formats.of(PurePath(name)) is None


def test_a_kind_has_a_suffix() -> None:
    assert formats.Kind(format="jsonl", gzip=True).suffix == ".jsonl.gz"
    assert formats.Kind(format="arrow").suffix == ".arrow"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="'xlsx' is not a format"):
        formats.parse("xlsx")
    assert formats.parse("csv") == "csv"


def test_a_directory_gives_its_data_files_sorted_and_nothing_hidden(tree: Path) -> None:
    assert names(inputs.find([tree]), tree) == ["a.parquet", "b.csv", "sub/c.jsonl", "z.csv.gz"]


def test_stems_keep_the_place_inside_the_directory(tree: Path) -> None:
    assert [source.stem for source in inputs.find([tree])] == ["a", "b", "sub/c", "z"]


def test_files_come_in_the_order_given_each_once(tree: Path) -> None:
    given = [str(tree / "b.csv"), tree / "a.parquet", str(tree / "sub" / ".." / "b.csv"), tree / "*.csv"]
    assert names(inputs.find(given), tree) == ["b.csv", "a.parquet"]


def test_a_pattern_is_expanded_sorted(tree: Path) -> None:
    assert names(inputs.find([str(tree / "*.[cp]*")]), tree) == ["a.parquet", "b.csv", "z.csv.gz"]


def test_a_recursive_pattern_gives_each_file_once(tree: Path) -> None:
    assert names(inputs.find([str(tree / "**" / "*.jsonl")]), tree) == ["sub/c.jsonl"]
    assert names(inputs.find([str(tree / "s*")]), tree) == ["sub/c.jsonl"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_bytes(b"")
    assert names(inputs.find([str(tmp_path / "a[1].csv")]), tmp_path) == ["a[1].csv"]


def test_an_explicit_format_takes_files_without_a_suffix_but_none_of_another_format(tree: Path) -> None:
    assert names(inputs.find([tree], "csv"), tree) == ["b.csv", "notes.txt", "z.csv.gz"]


def test_an_explicit_format_overrules_the_suffix_of_a_file(tree: Path) -> None:
    (source,) = inputs.find([tree / "notes.txt"], "csv")
    assert (source.kind.format, source.stem) == ("csv", "notes.txt")


def test_a_link_that_leads_nowhere_is_no_silence(tree: Path) -> None:
    (tree / "sub" / ".#locked.csv").symlink_to("somebody@somewhere")
    assert len(inputs.find([tree])) == 4
    for name in ("lost.csv", "lost"):
        link = tree / "sub" / name
        link.symlink_to("nowhere")
        for given in (tree, tree / "sub" / "lost*"):
            with pytest.raises(UsageError, match=f"the link .*/sub/{name} leads nowhere") as caught:
                inputs.find([given])
            assert caught.value.code == "input-missing"
        link.unlink()


def test_standard_input_is_json_lines_unless_told(tree: Path) -> None:
    assert inputs.find(["-"])[0].kind.format == "jsonl"
    assert inputs.find(["-"], "csv")[0].kind.format == "csv"
    assert inputs.find(["-"])[0].name == "<stdin>"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([], "input-missing"),
        (["nowhere.csv"], "input-missing"),
        (["nowhere*.csv"], "input-missing"),
        (["notes.txt"], "input-format"),
        (["_tmp/.."], None),
        (["empty"], "input-empty"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], code: str | None
) -> None:
    (tree / "empty").mkdir()
    monkeypatch.chdir(tree)
    if code is None:
        assert inputs.find(given)
        return
    with pytest.raises(UsageError) as caught:
        inputs.find(given)
    assert caught.value.code == code
