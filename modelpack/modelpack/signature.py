"""What a model takes and gives: tables of columns or sets of tensors, and params (spec/05-signature.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from modelpack.dtypes import DataType, Strict, TensorName, refuse_repeats

__all__ = ["IO", "Column", "Constraints", "Json", "Param", "Signature", "Table", "Tensor", "Tensors"]

Name = Annotated[str, Field(min_length=1, max_length=1024)]
Dim = Annotated[int, Field(ge=0, le=2**53 - 1)] | Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None


class Column(Strict):
    """One column of a table.

    ``nullable``: a value may be missing. ``optional``: the whole column may be left out.
    """

    name: Name
    type: DataType
    nullable: bool = False
    optional: bool = False
    description: Annotated[str, Field(max_length=4096)] | None = None


class Tensor(Strict):
    """One tensor: element type and shape.

    A dimension is a size, a symbol (equal symbols must be equal in one request), or null for any size. ``nullable``
    says whether NaN is taken (float types only).
    """

    name: Name
    dtype: TensorName
    shape: Annotated[tuple[Dim, ...], Field(max_length=32, strict=False)]
    nullable: bool = False
    optional: bool = False
    description: Annotated[str, Field(max_length=4096)] | None = None

    @model_validator(mode="after")
    def _nan_needs_float(self) -> Tensor:
        if self.nullable and not self.dtype.startswith("float"):
            raise ValueError(f"a tensor of {self.dtype} has no NaN: nullable belongs to float types")
        return self


class Table(Strict):
    """Rows of named columns."""

    kind: Literal["table"] = "table"
    columns: Annotated[tuple[Column, ...], Field(min_length=1, strict=False)]
    extra_columns: Literal["ignore", "reject"] = "ignore"

    @model_validator(mode="after")
    def _names_differ(self) -> Table:
        refuse_repeats(column.name for column in self.columns)
        return self


class Tensors(Strict):
    """A set of named tensors."""

    kind: Literal["tensors"] = "tensors"
    tensors: Annotated[tuple[Tensor, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _names_differ(self) -> Tensors:
        refuse_repeats(tensor.name for tensor in self.tensors)
        return self


class Json(Strict):
    """Any JSON value, unchecked: what a Python function returns when it is neither a table nor a tensor."""

    kind: Literal["json"] = "json"


IO = Annotated[Table | Tensors | Json, Field(discriminator="kind")]


class Constraints(Strict):
    """Limits on a param's value; the words are JSON Schema's."""

    minimum: int | float | None = None
    maximum: int | float | None = None
    enum: Annotated[tuple[Any, ...], Field(min_length=1, strict=False)] | None = None
    min_length: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None


class Param(Strict):
    """One param of a call.

    Without ``default`` the param is required, unless ``nullable``, when it is null if not sent.
    ``changes_outputs``: with another value than the default the outputs are not those of the signature
    (a choice of method, for example), so they are not checked against it.
    """

    name: Name
    type: DataType
    default: Any = None
    nullable: bool = False
    constraints: Constraints | None = None
    changes_outputs: bool = False
    description: Annotated[str, Field(max_length=4096)] | None = None


class Signature(Strict):
    """Inputs, outputs and params of a model; a part that is None is not checked."""

    inputs: Annotated[Table | Tensors, Field(discriminator="kind")] | None = None
    outputs: IO | None = None
    params: Annotated[tuple[Param, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Signature:
        refuse_repeats(param.name for param in self.params)
        return self
