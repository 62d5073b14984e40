"""Where applications are in a table: what delta-rs would say, asked much less."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from modelpack_server.delta import transactions
from modelpack_server.delta.commit import Target
from modelpack_server.delta.transactions import Transactions


def move(root: Path, **moved: int) -> None:
    """Append a row, and move applications with it."""
    some = [Transaction(name, value) for name, value in moved.items()]
    write_deltalake(
        root, pa.table({"id": [1]}), mode="append", commit_properties=CommitProperties(app_transactions=some)
    )


def log(root: Path, version: int) -> Path:
    return root / "_delta_log" / f"{version:020d}.json"


NAMES = ("a", "b", "c")


def test_it_says_what_the_table_says(tmp_path: Path) -> None:
    root = tmp_path / "t"
    move(root, a=1)
    known = Transactions(root)
    for number in range(2, 9):
        table = DeltaTable(root)
        for name in NAMES:
            assert known.of(table, name) == table.transaction_version(name)
        move(root, **{NAMES[number % 2]: number})
        move(root)
        if number == 5:
            DeltaTable(root).create_checkpoint()
            DeltaTable(root).optimize.compact()


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "t"
    read: list[int] = []
    real = transactions.read_commit

    def noted(where: Any, version: int) -> Any:
        read.append(version)
        return real(where, version)

    monkeypatch.setattr(transactions, "read_commit", noted)
    for number in range(3):
        move(root, a=number)
    known = Transactions(root)
    assert known.of(DeltaTable(root), "a") == 2
    move(root)
    move(root, a=7)
    for _ in range(2):
        assert known.of(DeltaTable(root), "a") == 7
    assert read == [2, 3, 4]


@pytest.mark.parametrize("broken", [False, True])
def test_where_the_log_was_cleaned_the_table_is_asked(tmp_path: Path, broken: bool) -> None:
    root = tmp_path / "t"
    move(root, a=1)
    known = Transactions(root)
    assert known.of(DeltaTable(root), "a") == 1
    move(root, a=2)
    move(root)
    DeltaTable(root).create_checkpoint()
    log(root, 1).write_text("{") if broken else log(root, 1).unlink()
    assert known.of(DeltaTable(root), "a") == 2


def test_an_older_snapshot_is_asked_itself(tmp_path: Path) -> None:
    root = tmp_path / "t"
    move(root, a=1)
    old = DeltaTable(root)
    move(root, a=2)
    known = Transactions(root)
    assert known.of(DeltaTable(root), "a") == 2
    assert known.of(old, "a") == 1
    assert known.of(DeltaTable(root), "a") == 2


def test_a_table_without_its_newest_commit_is_opened_anew(tmp_path: Path) -> None:
    def make(*moved: int) -> None:
        for value in moved:
            move(root, a=value)
        DeltaTable(root).create_checkpoint()
        for version in range(len(moved)):
            log(root, version).unlink()

    root, target = tmp_path / "t", Target(tmp_path / "t", family="test")
    make(1, 2)
    table = target.open()
    assert table is not None and target.moved(table, "a") == 2
    shutil.rmtree(root)
    make(3, 4)
    now = target.refresh(table)
    assert now is not None and target.moved(now, "a") == 4
    assert now.metadata().id == DeltaTable(root).metadata().id
