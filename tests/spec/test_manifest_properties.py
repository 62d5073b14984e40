"""Any manifest, good or bad, is read or refused properly, and the code accepts nothing that the schema refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelpack.errors import ManifestError
from modelpack.fieldpath import join
from modelpack.manifest import Manifest

VALID = Path(__file__).parents[2] / "spec" / "vectors" / "valid"
SEEDS = {
    name: json.loads((VALID / name / "pkg" / "modelpack.json").read_bytes())
    for name in ("whole", "all-types", "nested-types", "tensors", "params", "two-flavors-one-payload", "environment")
}
# Objects whose properties are names of the producer's choice, or none of the format's business.
FREE = {"tags", "payloads", "made_with", "declares", "config", "captured", "hardware", "provenance", "metrics"}
FREE |= {"extensions", "default", "enum"}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**53, -1.5, 1.0, 0.1]),
    st.text(max_size=5),
    st.sampled_from(["table", "tensors", "json", "int8", "utf8", "name", "timestamp", "a\n", "../x", "sha256:", "1.0"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["kind", "type", "name", "unit", "items", "struct", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)
Step = str | int


def places(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Yield the path of every value in a document but the document itself."""
    steps: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from places(inner, (*path, step))


def at(value: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a good manifest and spoil it in up to three places."""
    value = copy.deepcopy(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    value["modelpack"] = draw(st.sampled_from(["1.0", "1.0", "1.6"]))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(value))))
        holder, step = at(value, path[:-1]), path[-1]
        match draw(st.sampled_from(["replace", "remove", "rename", "copy"])):
            case "remove":
                del holder[step]
            case "rename" if isinstance(step, str):
                holder[draw(st.text(max_size=4)) or "type"] = holder.pop(step)
            case "copy":
                other = at(value, draw(st.sampled_from(list(places(value)) or [()])))
                holder[step] = copy.deepcopy(other)
            case _:
                holder[step] = draw(VALUES)
    return value


@given(mutated())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_spoilt_manifest_is_refused_by_name_or_is_none(schema: Callable[[str], Any], value: dict[str, Any]) -> None:
    try:
        manifest = Manifest.parse(json.dumps(value).encode())
    except ManifestError as exc:
        str(exc).encode()
        json.dumps(exc.to_json())
        assert all(fault.code and fault.message for fault in exc.faults)
        return
    assert manifest == Manifest.parse(manifest.to_bytes())
    if value["modelpack"] == "1.0":
        schema("manifest-1.0").validate(value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_refused_with_a_code(raw: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(raw)
    assert caught.value.code


def objects() -> list[Any]:
    """Return every object of the seeds whose properties are the format's."""
    found = []
    for name, value in SEEDS.items():
        for path in [(), *places(value)]:
            free = any(step in FREE for step in path[:-1] if step != "payloads") or (path and path[-1] in FREE)
            if isinstance(at(value, path), dict) and not free:
                found.append(pytest.param(name, path, id=f"{name}:{join('', *path)}"))
    return found


@pytest.mark.parametrize(("name", "path"), objects())
def test_an_unknown_property_is_refused_at_its_place_and_ignored_in_a_newer_minor(
    name: str, path: tuple[Step, ...]
) -> None:
    value = copy.deepcopy(SEEDS[name])
    at(value, path)["later"] = {"kind": "table", "columns": 1}
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(json.dumps(value).encode())
    assert (caught.value.code, caught.value.path) == ("field-unknown", join("", *path, "later"))
    newer = {**SEEDS[name], "modelpack": "1.1"}
    assert Manifest.parse(json.dumps(newer).encode()) == Manifest.parse(
        json.dumps({**value, "modelpack": "1.1"}).encode()
    )
