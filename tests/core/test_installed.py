"""What distributions offer is found when they are installed, also into a running process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelpack import installed


def install(site: Path, name: str, text: str) -> None:
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[some.group]\n{text}\n")


def names() -> list[str]:
    return sorted(point.name for point in installed.offered("some.group"))


def test_what_is_installed_meanwhile_is_found_and_what_goes_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, other = tmp_path / "site", tmp_path / "other"
    site.mkdir()
    other.mkdir()
    monkeypatch.syspath_prepend(str(site))
    assert names() == []
    install(site, "one", "first = one:A")
    assert names() == ["first"]
    install(other, "two", "second = two:B")
    assert names() == ["first"]
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    assert names() == ["first", "second"]
    assert [installed.version(name) for name in ("one", "two", "three")] == ["1.0", "1.0", None]
    (site / "one-1.0.dist-info").rename(tmp_path / "gone")
    assert names() == ["second"]
    assert [installed.version(name) for name in ("one", "two", "three")] == [None, "1.0", None]
    (point,) = installed.offered("some.group")
    assert (point.value, installed.offered("another.group")) == ("two:B", ())
