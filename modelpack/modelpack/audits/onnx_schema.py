"""The messages of an ONNX file and the fields they have (onnx.proto, up to IR version 14)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from modelpack.audits.onnx_wire import Field, Kind

__all__ = [
    "ATTRIBUTE",
    "ATTRIBUTE_FIELDS",
    "DIMENSION",
    "ELEMENTS",
    "ENTRY",
    "FUNCTION",
    "GRAPH",
    "MODEL",
    "NODE",
    "OPERATORS",
    "SHAPE",
    "TENSOR",
    "TENSOR_TYPE",
    "TYPE",
    "TYPE_KINDS",
    "VALUE",
]


def _message(**fields: tuple[int, str]) -> Mapping[int, Field]:
    """Return a table from ``name=(number, kind)``; a kind that ends in ``*`` may come more than once."""
    kinds: Mapping[str, Kind] = {k: k for k in ("int", "text", "bytes", "message", "float", "double")}
    return MappingProxyType(
        {number: Field(name, kinds[kind.rstrip("*")], kind.endswith("*")) for name, (number, kind) in fields.items()}
    )


MODEL = _message(
    ir_version=(1, "int"), producer_name=(2, "text"), producer_version=(3, "text"), domain=(4, "text"),
    model_version=(5, "int"), doc_string=(6, "text"), graph=(7, "message"), opset_import=(8, "message*"),
    metadata_props=(14, "message*"), training_info=(20, "message*"), functions=(25, "message*"),
    configuration=(26, "message*"),
)  # fmt: skip
OPERATORS = _message(domain=(1, "text"), version=(2, "int"))
ENTRY = _message(key=(1, "text"), value=(2, "text"))
GRAPH = _message(
    node=(1, "message*"), name=(2, "text"), initializer=(5, "message*"), doc_string=(10, "text"),
    input=(11, "message*"), output=(12, "message*"), value_info=(13, "message*"),
    quantization_annotation=(14, "message*"), sparse_initializer=(15, "message*"), metadata_props=(16, "message*"),
)  # fmt: skip
NODE = _message(
    input=(1, "text*"), output=(2, "text*"), name=(3, "text"), op_type=(4, "text"), attribute=(5, "message*"),
    doc_string=(6, "text"), domain=(7, "text"), overload=(8, "text"), metadata_props=(9, "message*"),
    device_configurations=(10, "message*"),
)  # fmt: skip
ATTRIBUTE = _message(
    name=(1, "text"), f=(2, "float"), i=(3, "int"), s=(4, "bytes"), t=(5, "message"), g=(6, "message"),
    floats=(7, "float*"), ints=(8, "int*"), strings=(9, "bytes*"), tensors=(10, "message*"), graphs=(11, "message*"),
    doc_string=(13, "text"), tp=(14, "message"), type_protos=(15, "message*"), type=(20, "int"),
    ref_attr_name=(21, "text"), sparse_tensor=(22, "message"), sparse_tensors=(23, "message*"),
)  # fmt: skip
FUNCTION = _message(
    name=(1, "text"), input=(4, "text*"), output=(5, "text*"), attribute=(6, "text*"), node=(7, "message*"),
    doc_string=(8, "text"), opset_import=(9, "message*"), domain=(10, "text"), attribute_proto=(11, "message*"),
    value_info=(12, "message*"), overload=(13, "text"), metadata_props=(14, "message*"),
)  # fmt: skip
TENSOR = _message(
    dims=(1, "int*"), data_type=(2, "int"), segment=(3, "message"), float_data=(4, "float*"),
    int32_data=(5, "int*"), string_data=(6, "bytes*"), int64_data=(7, "int*"), name=(8, "text"),
    raw_data=(9, "bytes"), double_data=(10, "double*"), uint64_data=(11, "int*"), doc_string=(12, "text"),
    external_data=(13, "message*"), data_location=(14, "int"), metadata_props=(16, "message*"),
)  # fmt: skip
VALUE = _message(name=(1, "text"), type=(2, "message"), doc_string=(3, "text"), metadata_props=(4, "message*"))
# A type is one of these kinds.
TYPE = _message(
    tensor_type=(1, "message"), sequence_type=(4, "message"), map_type=(5, "message"), denotation=(6, "text"),
    opaque_type=(7, "message"), sparse_tensor_type=(8, "message"), optional_type=(9, "message"),
)  # fmt: skip
TYPE_KINDS: Mapping[str, Mapping[int, Field]] = {
    "sequence_type": _message(elem_type=(1, "message")),
    "optional_type": _message(elem_type=(1, "message")),
    "map_type": _message(key_type=(1, "int"), value_type=(2, "message")),
}
TENSOR_TYPE = _message(elem_type=(1, "int"), shape=(2, "message"))
SHAPE = _message(dim=(1, "message*"))
DIMENSION = _message(dim_value=(1, "int"), dim_param=(2, "text"), denotation=(3, "text"))

# AttributeProto.type -> the field that holds the value.
ATTRIBUTE_FIELDS: Mapping[int, str] = {
    1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs",
    11: "sparse_tensor", 12: "sparse_tensors", 13: "tp", 14: "type_protos",
}  # fmt: skip

# TensorProto.data_type -> (bits of an element, the field that may hold them instead of raw_data, fields per element).
ELEMENTS: Mapping[int, tuple[int, str, int]] = {
    1: (32, "float_data", 1), 2: (8, "int32_data", 1), 3: (8, "int32_data", 1), 4: (16, "int32_data", 1),
    5: (16, "int32_data", 1), 6: (32, "int32_data", 1), 7: (64, "int64_data", 1), 8: (0, "string_data", 1),
    9: (8, "int32_data", 1), 10: (16, "int32_data", 1), 11: (64, "double_data", 1), 12: (32, "uint64_data", 1),
    13: (64, "uint64_data", 1), 14: (64, "float_data", 2), 15: (128, "double_data", 2), 16: (16, "int32_data", 1),
    17: (8, "int32_data", 1), 18: (8, "int32_data", 1), 19: (8, "int32_data", 1), 20: (8, "int32_data", 1),
    21: (4, "int32_data", 1), 22: (4, "int32_data", 1), 23: (4, "int32_data", 1), 24: (8, "int32_data", 1),
    25: (2, "int32_data", 1), 26: (2, "int32_data", 1),
}  # fmt: skip
