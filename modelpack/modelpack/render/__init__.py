"""A frame in the form that a model, a file or a client takes; nothing changes its value on the way."""

from __future__ import annotations

from modelpack.render.arrow import OPTIONAL, arrow_type, to_arrow
from modelpack.render.forms import to
from modelpack.render.plain import plain

__all__ = ["OPTIONAL", "arrow_type", "plain", "to", "to_arrow"]
