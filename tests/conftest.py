"""Shared by all tests: nobody's real trust store is touched, and processes can be interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

# A shell that starts the suite in the background ignores SIGINT, and every process started here would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def trust_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a trust store of its own, inherited by the processes it starts."""
    store = tmp_path_factory.mktemp("trust") / "store"
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(store))
    return store
