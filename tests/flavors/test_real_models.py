"""Models that nobody here made, fetched from PyPI: packed, loaded by a stranger, scored as by their own framework."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("real_models", ROOT / "scripts" / "real_models.py")
assert _SPEC is not None and _SPEC.loader is not None
real_models = importlib.util.module_from_spec(_SPEC)
sys.modules["real_models"] = real_models
_SPEC.loader.exec_module(real_models)


@pytest.mark.parametrize("real", real_models.MODELS, ids=lambda real: real.name)
def test_a_real_model_answers_as_its_own_framework(tmp_path: Path, real: Any) -> None:
    outcome = real_models.run(real, tmp_path)
    assert outcome.trust == real.trust
    assert outcome.difference <= 1e-5
    assert outcome.http


def test_the_page_lists_every_model() -> None:
    page = real_models.PAGE.read_text("utf-8")
    for real in real_models.MODELS:
        assert f"| {real.name} | {real.package} {real.version} | {real.licence} |" in page
