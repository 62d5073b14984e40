"""What the tables tell of a stream."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import modelpack
from modelpack.errors import InputError
from modelpack.model import Model
from modelpack_server.stream import Options, Status, status


def look(tables: Any, model: Model, **options: Any) -> Status:
    """Return the status."""
    return status(model.digest, tables.source, tables.output, Options(**options))


def test_a_new_stream_has_all_before_it(tables: Any, model: Model) -> None:
    tables.add()
    tables.add()
    found = look(tables, model)
    assert (found.scored, found.output_version, found.package) == (None, None, None)
    assert (found.versions, found.files, found.rows) == (1, 2, 20)  # the table as it is, in one
    assert found.lag > 0
    assert not tables.output.exists()


def test_the_backlog_is_what_was_added_since(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    found = look(tables, model)
    assert (found.scored, found.version, found.index, found.rows, found.lag) == (0, 1, 0, 0, 0.0)
    assert found.package is True
    tables.add(3)
    DeltaTable(tables.source).optimize.compact()
    tables.add(4)
    found = look(tables, model)
    assert (found.scored, found.versions, found.files, found.rows) == (0, 3, 2, 7)
    assert look(tables, model, job="other").scored is None


def test_a_stream_within_a_version_says_at_which_file(tables: Any, model: Model) -> None:
    for _ in range(3):
        tables.add()

    class Enough(Exception):
        pass

    def stop(_: str) -> None:
        raise Enough

    with pytest.raises(Enough):
        tables.run(model, max_rows=10, said=type("Said", (), {"append": staticmethod(stop)}))
    found = look(tables, model)
    assert (found.scored, found.version, found.index, found.rows) == (1, 2, 1, 20)


def test_what_would_stop_the_stream_is_said(tables: Any, model: Model) -> None:
    tables.add()
    tables.run(model)
    DeltaTable(tables.source).delete("id = 3")
    with pytest.raises(InputError, match="version 1 deletes or rewrites rows"):
        look(tables, model)


def test_what_begins_later_or_goes_on_behind_changes_is_told_so(tables: Any, model: Model) -> None:
    tables.add()
    tables.add(3)
    assert look(tables, model, from_version=1).rows == 3
    tables.run(model)
    DeltaTable(tables.source).delete("id = 12")
    assert look(tables, model, changes="append").versions == 1


@pytest.mark.slow
def test_the_command_says_it_in_words_and_in_json(
    tables: Any, model: Model, make_package: Any, command: list[str]
) -> None:
    tables.add()
    tables.run(model)
    tables.add(5)
    words = ["--from", str(tables.source), "--to", str(tables.output), "--status"]
    text = "def predict(data):\n    return {'score': [0.0 for _ in data['x']]}\n"
    other: Path = make_package(tables.folder / "more", text=text)
    assert modelpack.open(other).digest != model.digest
    done = subprocess.run([*command, str(other), *words], capture_output=True, text=True, check=True)
    assert "scored up to version 0, next is file 0 of version 1" in done.stdout
    assert "5 rows in 1 files of 1 versions, the first of them for" in done.stdout
    assert "another one scored up to here" in done.stdout
    line = [*command, str(tables.folder / "pkg"), *words, "--json"]
    found = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    assert found["position"] == {"scored": 0, "version": 1, "file": 0}
    assert found["backlog"] == {"versions": 1, "files": 1, "rows": 5}
    assert found["same_package"] is True
