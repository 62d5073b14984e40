"""Lines parsed together are what each of them is alone."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack_server.batch import inputs
from modelpack_server.batch.chunks import Wanted
from modelpack_server.batch.readers import read
from modelpack_server.codecs import json_body

whole = ['{"a":1}', "{}", '{"a":1,"a":2}', '{"a":12345678901234567890123}', '{"a":1.5,"b":null}', '{"s":"["}']
torn = ['{"a":', "1", "}", "{", "[", "]", ",", '"', '{"a":"x', 'y"}', "NaN", "null", " ", "\\", "\r", "],["]
parts = st.sampled_from(whole + torn)
lines = st.lists(parts, max_size=4).map("".join)


def alone(line: bytes) -> object:
    """Return the record in a line, or None if it is none."""
    try:
        value = json_body.parse(line)
    except InputError:
        return None
    return value if isinstance(value, dict) else None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.lists(lines, max_size=6), size=st.integers(1, 6), end=st.sampled_from(["\n", "\r\n"]))
@example(body=['{"a":"x', 'y"}'], size=6, end="\n")
@example(body=['{"a":[{}', "{}]}", "{},{}"], size=6, end="\n")
@example(body=["{},{}", "{}"], size=6, end="\n")
@example(body=["{}],[{}", '{"a":[1', "1]}"], size=6, end="\n")
def test_lines_do_not_run_into_each_other(tmp_path: Path, body: list[str], size: int, end: str) -> None:
    raw = end.join(body).encode()
    (tmp_path / "t.jsonl").write_bytes(raw)
    (source,) = inputs.find([tmp_path / "t.jsonl"])
    chunks = list(read(source, Wanted(inputs=None, keep=None), size))
    expected = [(number, alone(line)) for number, line in enumerate(raw.split(b"\n"), start=1) if line.strip()]
    found = []
    for chunk in chunks:
        assert isinstance(chunk.data, list) and chunk.lines is not None
        good = list(zip(chunk.numbers.tolist(), chunk.lines.tolist(), chunk.data, strict=True))
        found += sorted([*good, *((b.row, b.line, None) for b in chunk.broken)], key=lambda item: item[0])
    assert [row for row, _, _ in found] == list(range(1, len(expected) + 1))
    # Compared as text, since NaN differs from itself.
    assert repr([(line, value) for _, line, value in found]) == repr(expected)
