"""What a server tells about the model it serves: ``/metadata``, the OpenAPI document, the page, the ready line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from modelpack import Model, coerce, forms
from modelpack.errors import ModelpackError
from modelpack_server.choosing import original_of

__all__ = ["EXAMPLE_ROWS", "Facts", "of"]

# Enough to show the shape of a request.
EXAMPLE_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Name, origin and trust of a model.

    ``twin`` is set where the model is a checked twin: ``of`` which flavor, and how it was held to that one's answers.
    ``example`` is a small ``/invocations`` body (None without one).
    """

    name: str
    version: str
    digest: str
    flavor: str
    trust: str
    manifest: Mapping[str, Any]
    description: str = ""
    twin: Mapping[str, Any] | None = None
    example: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what ``/metadata`` says."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "flavor": self.flavor,
            "trust": self.trust,
            "twin": self.twin,
            "signature": self.manifest.get("signature", {}),
            "manifest": self.manifest,
        }


def of(model: Model) -> Facts:
    """Return the facts about a loaded model."""
    manifest = model.manifest
    return Facts(
        name=manifest.name,
        version=manifest.version,
        digest=model.digest,
        flavor=model.candidate.name,
        trust=model.candidate.trust or "unknown",
        manifest=orjson.loads(manifest.to_bytes()),
        description=manifest.description or "",
        twin=_twin(model),
        example=_example(model),
    )


def _twin(model: Model) -> Mapping[str, Any] | None:
    entry = model.manifest.flavors[model.candidate.index]
    if entry.checked is None:
        return None
    return {"of": original_of(model.manifest, entry), "checked": entry.checked.model_dump(mode="json")}


def _example(model: Model) -> Mapping[str, Any] | None:
    """Return the first rows of the package's first example, and its params, as a request."""
    if not model.manifest.examples:
        return None
    body = orjson.loads(model.package.files().read(model.manifest.examples[0].input))
    try:
        call = forms.parse(body, signature=model.signature)
        frame = coerce.inputs(call.data, model.signature, wire="json", at=call.at)
        small = forms.build(frame.slice(0, min(frame.rows, EXAMPLE_ROWS)))
    except ModelpackError:
        # An example that does not fit is a matter for `modelpack test`, not a reason not to serve.
        return None
    return {**small, "params": dict(call.params)} if call.params else small
