"""Deletion vectors of Delta tables, as the protocol describes them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

# The protocol's alphabet (Z85) beside that of Python's base64.b85encode.
OURS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
THEIRS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def vector(dead: Sequence[int]) -> dict[str, Any]:
    """Return a vector, inline, that deletes these rows of a file of less than 65,536."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(dead) - 1, 16) + struct.pack(f"<{len(dead)}H", *dead)
    data = struct.pack("<IqI", 1681511377, 1, 0) + bitmap
    text = base64.b85encode(data + bytes(-len(data) % 4)).decode().translate(str.maketrans(OURS, THEIRS))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(dead)}
