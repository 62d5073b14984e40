"""The OpenAPI document and the page say what the signature says."""

from __future__ import annotations

from dataclasses import replace

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from modelpack.dtypes import (
    DecimalType,
    DictionaryType,
    DurationType,
    Element,
    ListType,
    MapType,
    StructField,
    StructType,
    TimestampType,
)
from modelpack.signature import Column, Constraints, Json, Param, Signature, Table, Tensor, Tensors
from modelpack_server import openapi, page, schemas
from modelpack_server.codecs import DECODERS, possible
from modelpack_server.facts import Facts

FACTS = Facts(
    name="m",
    version="1",
    digest="sha256:00",
    flavor="python",
    trust="code",
    manifest={"modelpack": "1.0"},
    example={"dataframe_split": {"columns": ["a"], "data": [[1]]}},
)
EVERYTHING = Table(
    columns=(
        Column(name="flag", type="bool"),
        Column(name="small", type="int8", nullable=True),
        Column(name="size", type="uint64", optional=True, description="How large."),
        Column(name="ratio", type="float32", nullable=True),
        Column(name="name", type="utf8"),
        Column(name="blob", type="binary"),
        Column(name="day", type="date32"),
        Column(name="instant", type=TimestampType(unit="us", tz="UTC")),
        Column(name="wall", type=TimestampType(unit="s")),
        Column(name="length", type=DurationType(unit="ms")),
        Column(name="price", type=DecimalType(precision=9, scale=2)),
        Column(name="scores", type=ListType(items=Element(type="float64", nullable=True), length=2)),
        Column(name="tags", type=ListType(items=Element(type="utf8"))),
        Column(
            name="place",
            type=StructType(
                fields=(StructField(name="lat", type="float64"), StructField(name="lon", type="float64", optional=True))
            ),
        ),
        Column(name="counts", type=MapType(values=Element(type="int64"))),
        Column(name="kind", type=DictionaryType(categories=("a", "b"))),
        Column(name="code", type=DictionaryType(values="int32")),
        Column(name="whatever", type="any", nullable=True),
    )
)
STRICT = Table(columns=(Column(name="a", type="int64"),), extra_columns="reject")
ONE = Tensors(tensors=(Tensor(name="x", dtype="float32", shape=(None, 2), description="Pixels."),))
TWO = Tensors(
    tensors=(Tensor(name="x", dtype="float64", shape=("n", 2), nullable=True), Tensor(name="y", dtype="utf8", shape=()))
)
PARAMS = (
    Param(name="k", type="int64", default=3, constraints=Constraints(minimum=1, maximum=9), description="How many."),
    Param(name="method", type="utf8", constraints=Constraints(enum=("a", "b"), min_length=1, max_length=1)),
    Param(name="note", type="utf8", nullable=True),
)
SIGNATURES = [
    Signature(inputs=EVERYTHING, outputs=EVERYTHING, params=PARAMS),
    Signature(inputs=STRICT, outputs=ONE),
    Signature(inputs=ONE, outputs=TWO),
    Signature(inputs=TWO, outputs=Json()),
    Signature(),
]
ROW = {
    "flag": True,
    "small": None,
    "ratio": 0.5,
    "name": "x",
    "blob": "YQ==",
    "day": "2020-01-01",
    "instant": "2020-01-01T00:00:00Z",
    "wall": "2020-01-01T00:00:00",
    "length": "PT1S",
    "price": "1.50",
    "scores": [1, None],
    "tags": [],
    "place": {"lat": 1.0},
    "counts": {"a": 1},
    "kind": "a",
    "code": 7,
    "whatever": [1],
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_document_is_valid_openapi(signature: Signature) -> None:
    document = openapi.document(FACTS, signature)
    OpenAPIV31SpecValidator(document).validate()
    assert "/invocations" in document["paths"]


def request_schema(signature: Signature) -> dict[str, object]:
    document = openapi.document(FACTS, signature)
    content = document["paths"]["/invocations"]["post"]["requestBody"]["content"]
    return {**content["application/json"]["schema"], "components": document["components"]}


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": [ROW]},
        {"instances": [ROW], "params": {"method": "a", "k": 2}},
        {"inputs": {name: [cell] for name, cell in ROW.items()}},
        {"dataframe_split": {"columns": list(ROW), "index": [0], "data": [list(ROW.values())]}},
    ],
)
def test_the_schema_takes_what_the_server_takes(body: dict[str, object]) -> None:
    jsonschema.validate(body, request_schema(SIGNATURES[0]))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"dataframe_records": [{**ROW, "flag": "true"}]},
        {"dataframe_records": [{**ROW, "small": 128}]},
        {"dataframe_records": [{**ROW, "kind": "c"}]},
        {"dataframe_records": [{**ROW, "name": None}]},
        {"dataframe_records": [{name: cell for name, cell in ROW.items() if name != "flag"}]},
        {"dataframe_records": [ROW], "instances": [ROW]},
        {"dataframe_records": [ROW], "params": {"method": "a", "unknown": 1}},
        {"dataframe_records": [ROW], "params": {"method": "a", "k": 10}},
    ],
)
def test_the_schema_refuses_what_the_server_refuses(body: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, request_schema(SIGNATURES[0]))


def test_answers_may_hold_null_and_the_infinities() -> None:
    schema = schemas.answer(ONE)
    jsonschema.validate([[1.5, None], ["Infinity", "-Infinity"]], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([["NaN"]], schema)


def test_the_example_is_the_packages() -> None:
    content = openapi.document(FACTS, SIGNATURES[1])["paths"]["/invocations"]["post"]["requestBody"]["content"]
    assert content["application/json"]["example"] == FACTS.example
    jsonschema.validate(FACTS.example, request_schema(SIGNATURES[1]))


def test_without_an_example_none_is_made_up() -> None:
    content = openapi.document(replace(FACTS, example=None), Signature())["paths"]["/invocations"]["post"]
    assert "example" not in content["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_page_names_every_column_and_param(signature: Signature) -> None:
    html = page.render(FACTS, signature, "http://here:1/")
    for io in (signature.inputs, signature.outputs):
        for part in getattr(io, "columns", None) or getattr(io, "tensors", ()):
            assert f"<td>{part.name}</td>" in html
    for param in signature.params:
        assert f"<td>{param.name}</td>" in html
    assert "curl http://here:1/invocations" in html


def test_the_page_escapes_what_the_package_says() -> None:
    evil = "<script>alert('x')</script>"
    facts = replace(FACTS, description=evil, example={"dataframe_records": [{evil: "it's"}]})
    html = page.render(facts, Signature(inputs=Table(columns=(Column(name=evil, type="utf8"),))), "http://here/")
    assert "<script" not in html
    assert "it&#x27;\\&#x27;&#x27;s" in html


def test_the_page_does_without_an_example() -> None:
    assert "dataframe_records" in page.render(replace(FACTS, example=None), Signature(), "http://here/")


@pytest.mark.parametrize("signature", SIGNATURES)
def test_the_document_lists_the_formats_that_are_read_and_written(signature: Signature) -> None:
    call = openapi.document(FACTS, signature)["paths"]["/invocations"]["post"]
    assert sorted(call["requestBody"]["content"]) == sorted(DECODERS)
    assert tuple(call["responses"]["200"]["content"]) == possible(signature)
