"""Shared by all tests: nobody's real trust store is touched."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def trust_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a trust store of its own, inherited by the processes it starts."""
    store = tmp_path_factory.mktemp("trust") / "store"
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(store))
    return store
