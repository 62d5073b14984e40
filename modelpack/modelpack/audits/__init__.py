"""Static audits of payloads: what loading a payload would build or call, found without building or calling anything.

One module per payload format, called like the format, with ``audit(files, entry) -> Audit``. An audit imports no
framework; its verdict is computed here, by the consumer, and nothing in a package can change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Audit", "Class"]

# From the top of spec/09-trust.md#trust-classes to the bottom.
Class = Literal["data", "graph", "objects", "code"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What an audit found in a payload.

    ``trust`` is the payload's trust class. ``types`` are the names of all classes and functions that loading would
    import, sorted; ``unlisted`` those of them that nobody has reviewed. ``reasons`` say in words why the class is not
    a lower one; they are empty when everything is listed.
    """

    trust: Class
    types: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
