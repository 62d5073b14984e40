"""Settings: one frozen object with defaults that are safe."""

from __future__ import annotations

import dataclasses
import os

import pytest

from modelpack_server import settings
from modelpack_server.settings import Settings


def test_the_defaults_listen_to_this_machine_only() -> None:
    assert (Settings().host, Settings().port, Settings().workers) == ("127.0.0.1", 5000, 1)
    assert Settings().max_body == 100 * 1024 * 1024
    assert Settings().calls("code") == 1


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert settings.usable_cores() == 1
