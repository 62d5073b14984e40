"""Parquet in: one file is one request; its columns keep their own types until the signature checks them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as parquet

from modelpack.errors import InputError
from modelpack.signature import Signature
from modelpack_server.codecs import Decoded

__all__ = ["MAX_EXPANSION", "decode"]

# A few bytes of Parquet can stand for gigabytes; a body may grow to this many times its size, or to the floor.
MAX_EXPANSION = 1000
FLOOR = 256 * 1024 * 1024


def decode(body: bytes, signature: Signature) -> Decoded:
    """Return the rows of a Parquet body as an Arrow table."""
    limit = max(len(body) * MAX_EXPANSION, FLOOR)
    try:
        with parquet.ParquetFile(pa.BufferReader(body)) as file:
            batches, size = [], 0
            for batch in file.iter_batches(batch_size=16384):
                size += batch.nbytes
                if size > limit:
                    raise InputError("the Parquet body is too large once decoded", code="parquet-size")
                batches.append(batch)
            table = pa.Table.from_batches(batches, schema=file.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise InputError("the body is not a Parquet file that can be read", code="parquet-invalid") from exc
    if len(set(table.column_names)) < table.num_columns:
        raise InputError("the Parquet file has two columns of one name", code="parquet-duplicate-column")
    return Decoded(data=table, wire="python")
