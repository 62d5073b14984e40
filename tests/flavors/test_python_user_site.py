"""Libraries that are installed somewhere else than the interpreter's own folders."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

import modelpack


def test_what_the_user_has_installed_is_not_carried_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    # A lock cannot be pickled: carrying the module along would fail.
    (site / "mine_and_installed.py").write_text(
        "import threading\nLOCK = threading.Lock()\ndef one():\n    with LOCK: return 1\n"
    )
    monkeypatch.syspath_prepend(str(site))
    library: Any = importlib.import_module("mine_and_installed")

    def score(rows: Any) -> Any:
        return [library.one() for _ in rows]

    modelpack.save(score, tmp_path / "user", example=[{"a": 1}])
    assert modelpack.load(tmp_path / "user").predict([{"a": 1}]) == [1]
