"""Files of scikit-learn models as strangers make them: written unseen, changed by hand, loaded without a package."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelpack.flavor import LoadContext
from modelpack_flavors._sklearn import loading
from modelpack_flavors._sklearn.canonical import archive
from modelpack_flavors._sklearn.describing import Description

__all__ = ["archived", "edited", "read"]


def archived(model: Any) -> bytes:
    """Write a model without looking at it."""
    description = Description()
    return archive(description.node(model), description.members)


def edited(data: bytes, edit: Callable[[dict[str, Any], dict[str, bytes]], None]) -> bytes:
    """Return the archive with its schema and members changed by ``edit``."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    schema = json.loads(members.pop("schema.json"))
    edit(schema, members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("schema.json", json.dumps(schema))
        for name, content in members.items():
            target.writestr(name, content)
    return buffer.getvalue()


def read(data: bytes, *, allowed: bool = False, format_id: str = "skops") -> Any:
    """Load what was written, without a grant unless it is ``allowed``."""

    class Files:
        def read(self, path: str) -> bytes:
            return data

        def paths(self) -> list[str]:
            return ["model.skops"]

        def directory(self) -> Path:
            raise AssertionError("nothing here needs files")

    return loading.read(
        LoadContext(
            format=format_id,
            entry="model.skops",
            files=Files(),
            config={},
            entrypoint=None,
            code_allowed=allowed,
            namespace=None,
            signature=None,
        )
    )
