"""No models: the mlflow flavor reads directories and saves none (tests/flavors/test_mlflow.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[], Any]] = {}
