from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelpack import trust
from modelpack.errors import TrustError, UsageError
from modelpack.trust import Store

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32


def test_a_grant_is_for_one_digest(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.allows(DIGEST)
    store.add(DIGEST, name="churn", version="1")
    assert store.allows(DIGEST)
    assert not store.allows(OTHER)


def test_the_store_is_the_users_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "store")
    store.add(DIGEST, name="churn", version="1")
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in store.root.iterdir()] == [0o600]


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_store_others_can_write_is_not_used(tmp_path: Path, mode: int) -> None:
    store = Store(tmp_path / "store")
    store.add(DIGEST, name="churn", version="1")
    store.root.chmod(mode)
    for use in (store.grants, lambda: store.allows(DIGEST), lambda: store.add(OTHER, name="x", version="1")):
        with pytest.raises(TrustError, match="chmod 700") as info:
            use()
        assert info.value.code == "trust-store-unsafe"


def test_a_store_that_is_a_link_is_not_used(tmp_path: Path) -> None:
    Store(tmp_path / "real").add(DIGEST, name="churn", version="1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(TrustError):
        Store(tmp_path / "link").allows(DIGEST)


def test_grants_are_listed_and_withdrawn(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(DIGEST, name="churn", version="1", source="saved")
    store.add(OTHER, name="other", version="2")
    assert {(grant.digest, grant.name, grant.source) for grant in store.grants()} == {
        (DIGEST, "churn", "saved"),
        (OTHER, "other", "user"),
    }
    assert store.remove(DIGEST)
    assert not store.remove(DIGEST)
    assert [grant.digest for grant in store.grants()] == [OTHER]


def test_an_empty_store_grants_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.grants() == []
    assert not store.remove(DIGEST)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"digest": 1}', '{"digest": "x", "more": 1}'])
def test_a_damaged_grant_grants_nothing(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path / "store")
    store.add(DIGEST, name="churn", version="1")
    next(store.root.iterdir()).write_text(content)
    assert not store.allows(DIGEST)
    assert store.grants() == []


def test_a_grant_moved_to_another_digest_grants_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(DIGEST, name="churn", version="1")
    file = next(store.root.iterdir())
    file.rename(file.with_name(OTHER.removeprefix("sha256:") + ".json"))
    assert not store.allows(OTHER)


def test_only_a_file_of_ones_own_is_a_grant(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add(DIGEST, name="churn", version="1")
    file = next(store.root.iterdir())
    file.chmod(0o666)
    assert not store.allows(DIGEST)
    file.chmod(0o600)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert not store.allows(DIGEST)
    file.unlink()
    file.mkdir()
    assert not store.allows(DIGEST)
    assert store.grants() == []


@pytest.mark.parametrize("text", ["", "ab" * 32, "sha256:ab", DIGEST.upper(), DIGEST + "\n", "sha256:" + "xy" * 32])
def test_only_whole_digests_are_taken(tmp_path: Path, text: str) -> None:
    for use in (trust.parse_digest, Store(tmp_path).remove, lambda t: Store(tmp_path).add(t, name="x", version="1")):
        with pytest.raises(UsageError) as info:
            use(text)
        assert info.value.code == "digest-invalid"


def test_the_default_store_is_in_the_users_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODELPACK_TRUST_STORE", str(tmp_path / "chosen"))
    assert trust.default_store().root == tmp_path / "chosen"
    monkeypatch.delenv("MODELPACK_TRUST_STORE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert trust.default_store().root == tmp_path / "config" / "modelpack" / "trust"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.default_store().root == tmp_path / ".config" / "modelpack" / "trust"


def test_the_file_of_a_grant_is_readable_json(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    grant = store.add(DIGEST, name="churn", version="1")
    assert json.loads(next(store.root.iterdir()).read_text()) == {
        "digest": DIGEST,
        "name": "churn",
        "version": "1",
        "source": "user",
        "granted": grant.granted,
    }


def test_a_user_without_a_home_has_granted_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELPACK_TRUST_STORE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert not trust.default_store().allows(DIGEST)


def test_every_format_that_is_known_has_its_audit() -> None:
    """A format without one would be an error where an unknown format only disables a flavor."""
    from modelpack import audits

    folder = Path(audits.__file__).parent
    for name, audit in trust.FORMATS.items():
        wanted = [cell.cell_contents for cell in audit.__closure__ or () if isinstance(cell.cell_contents, str)]  # type: ignore[attr-defined]
        for module in wanted:
            assert (folder / f"{module}.py").exists(), name
