"""Audits of other distributions: asked by the format's name, believed if they answer, a refusal if they fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelpack import trust
from modelpack.errors import FlavorError, PackageError

FILES: Any = object()
Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Install a distribution with a module and the entry points that are given."""

    def offer(source: str, *points: str, name: str = "plugged") -> None:
        site = tmp_path / name
        (site / f"{name}-1.dist-info").mkdir(parents=True)
        (site / f"{name}-1.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (site / f"{name}-1.dist-info" / "entry_points.txt").write_text("[modelpack.audits]\n" + "\n".join(points))
        (site / f"{name}_module.py").write_text(source)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)

    return offer


def source(body: str) -> str:
    return f"from modelpack.audits import Audit\ndef audit(files, entry):\n    {body}\n"


def test_an_audit_is_found_by_the_formats_name(offer: Offer) -> None:
    offer(source("return Audit(trust='graph', types=(entry,))"), "mine = plugged_module:audit")
    found = trust.assess("mine", FILES, "model")
    assert found is not None
    assert (found.trust, found.types) == ("graph", ("model",))
    assert trust.assess("another", FILES, "model") is None
    assert trust.assess("plugged_module:audit", FILES, "model") is None


def test_its_verdict_stands_whoever_loads(offer: Offer) -> None:
    offer(source("return Audit(trust='data')"), "mine = plugged_module:audit")
    found = trust.assess("mine", FILES, "model", plugin="plugged")
    assert found is not None
    assert found.trust == "data"


def test_without_one_a_plugin_loads_code_and_nobody_else_loads_anything() -> None:
    found = trust.assess("unheard-of", FILES, "model", plugin="plugged")
    assert found is not None
    assert found.trust == "code"
    assert found.reasons == ("the format unheard-of: no audit says what the flavor plugged can run when it loads it",)
    assert trust.assess("unheard-of", FILES, "model") is None


@pytest.mark.parametrize("format_id", sorted(trust.FORMATS))
def test_no_plugin_is_asked_about_our_formats(format_id: str, offer: Offer, tmp_path: Path) -> None:
    offer(f"open({str(tmp_path / 'imported')!r}, 'w')", f"{format_id} = plugged_module:audit")
    try:
        found = trust.assess(format_id, FILES, "model", plugin="plugged")
    except PackageError:
        pass  # our own audit, which wants to read files that are none here
    else:
        assert found is not None
        assert found.trust == "code"
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    "body", ["1 / 0", "raise SystemExit(0)", "audit(files, entry)", "files.absent", "raise OSError"]
)
def test_an_audit_that_fails_refuses(offer: Offer, body: str) -> None:
    offer(source(body), "mine = plugged_module:audit")
    with pytest.raises(PackageError, match="the audit of the payload format 'mine' fails on it") as info:
        trust.assess("mine", FILES, "model", plugin="plugged")
    assert (info.value.code, info.value.path) == ("payload-invalid", "model")


def test_an_audit_may_refuse_by_itself(offer: Offer) -> None:
    body = "from modelpack.errors import PackageError; raise PackageError('odd', code='payload-invalid', path=entry)"
    offer(source(body), "mine = plugged_module:audit")
    with pytest.raises(PackageError, match="model: odd") as info:
        trust.assess("mine", FILES, "model", plugin="plugged")
    assert info.value.code == "payload-invalid"


@pytest.mark.parametrize(
    "answer",
    [
        "None",
        "'data'",
        "True",
        "Audit",
        "{'trust': 'data'}",
        "Audit(trust='safe')",
        "Audit(trust=None)",
        "Audit(trust=['data'])",
        "Audit(trust='data', reasons='none')",
        "Audit(trust='data', types=[1])",
        "Audit(trust='data', unlisted=(1,))",
    ],
)
def test_an_answer_that_is_no_verdict_refuses(offer: Offer, answer: str) -> None:
    offer(source(f"return {answer}"), "mine = plugged_module:audit")
    with pytest.raises(PackageError, match="its answer is no Audit") as info:
        trust.assess("mine", FILES, "model", plugin="plugged")
    assert (info.value.code, info.value.path) == ("payload-invalid", "model")


@pytest.mark.parametrize(
    ("text", "point", "said"),
    [
        ("raise ImportError('no')", "mine = plugged_module:audit", "cannot be imported: ImportError"),
        ("import sys; sys.exit()", "mine = plugged_module:audit", "cannot be imported: SystemExit"),
        ("", "mine = plugged_module:audit", "cannot be imported: AttributeError"),
        ("", "mine = no_such_module_here:audit", "cannot be imported: ModuleNotFoundError"),
        ("audit = 1", "mine = plugged_module:audit", "is no function"),
    ],
)
def test_what_is_no_audit_is_named(offer: Offer, text: str, point: str, said: str) -> None:
    offer(text, point)
    with pytest.raises(FlavorError, match=said) as info:
        trust.assess("mine", FILES, "model", plugin="plugged")
    assert info.value.code == "audit-invalid"
    assert point.partition(" = ")[2] in info.value.message


def test_two_audits_for_one_format_are_an_error_and_neither_is_imported(offer: Offer) -> None:
    offer("raise AssertionError", "mine = plugged_module:audit")
    offer("raise AssertionError", "mine = other_module:audit", name="other")
    with pytest.raises(FlavorError, match="other_module:audit, plugged_module:audit") as info:
        trust.assess("mine", FILES, "model", plugin="plugged")
    assert info.value.code == "audit-duplicate"


def test_one_audit_offered_twice_is_one(offer: Offer) -> None:
    offer(source("return Audit(trust='data')"), "mine = plugged_module:audit")
    offer("", "mine = plugged_module:audit", name="other")
    assert trust.assess("mine", FILES, "model") is not None
