"""The path grammar of spec/02-package.md and the pattern of the schema, against the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelpack import pathrules

SPEC = Path(__file__).parents[2] / "spec"
# Rules that a regular expression cannot state: bytes of UTF-8, and Unicode's tables.
BEYOND_THE_SCHEMA = {"path-normalization", "path-too-long", "path-character"}
PARTS = ["a", "A", ".", "..", "/", " ", "con", "LPT1", "aux.txt", "é", "e\u0301", "\\", ":", "\n", "\u202e", "\x85"]
PARTS += ["modelpack.json", "MODEL.sig", "modelpack.sig.json", "com¹", "-", "x" * 300, "\ud800", "🙂", "ß"]


def allowed() -> set[int]:
    """Return the code points that the grammar gives a segment."""
    text = (SPEC / "02-package.md").read_text("utf-8")
    grammar = dict(re.findall(r"^(\w+) +=(.+)$", text, re.MULTILINE))
    found: set[int] = set()
    for rule in ("first", "other", "character"):
        for first, last in re.findall(r"%x([0-9A-F]+)(?:-([0-9A-F]+))?", grammar[rule]):
            found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return found


def test_the_grammar_allows_the_characters_that_the_code_allows() -> None:
    looked_at = {*range(0x10000), 0x10000, 0x1F642, 0xE0001, 0x10FFFF}
    forbidden = {c for c in looked_at if (pathrules.fault(f"a{chr(c)}a") or ("", ""))[0] == "path-character"}
    assert allowed() & looked_at == looked_at - forbidden - {ord("/")}


@given(st.lists(st.sampled_from(PARTS), max_size=6).map("".join) | st.text(max_size=12))
@example("a/" * 512)
@settings(max_examples=1000, deadline=None)
def test_the_schema_refuses_what_the_code_refuses_as_far_as_it_can(path: str) -> None:
    rules = json.loads((SPEC / "schemas" / "manifest-1.0.schema.json").read_bytes())["$defs"]["path"]
    accepted = re.search(rules["pattern"], path) is not None and rules["minLength"] <= len(path) <= rules["maxLength"]
    found = pathrules.fault(path)
    if found is None:
        assert accepted
    elif found[0] not in BEYOND_THE_SCHEMA or (found[0] == "path-character" and not re.search("[\ud800-\udfff]", path)):
        assert not accepted
