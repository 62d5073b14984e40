"""Measures what JSON bodies cost the server before the model is called: CPU time to decode them and to coerce them.

Prints a Markdown table in microseconds: the smallest of several rounds, beside what orjson alone takes for the body.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import orjson

from modelpack import coerce
from modelpack.signature import Column, Signature, Table, Tensor, Tensors
from modelpack_server.codecs import json_body

ROUNDS = 5
# Each round takes about so long.
SECONDS = 0.05


def cost(call: Callable[[], object]) -> float:
    """Return the CPU time of a call in microseconds."""
    start = time.process_time()
    call()
    times = max(3, int(SECONDS / max(time.process_time() - start, 1e-6)))
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(times):
            call()
        rounds.append((time.process_time() - start) / times)
    return min(rounds) * 1e6


def table(types: list[str]) -> Signature:
    """Return the signature of a table; every column takes nulls."""
    columns = (Column(name=f"x{i}", type=dtype, nullable=True) for i, dtype in enumerate(types))  # type: ignore[arg-type]
    return Signature(inputs=Table(columns=tuple(columns)))


def bodies() -> Iterator[tuple[str, Signature, Any]]:
    """Yield each body: what it is, the signature it is read for, and what it says."""
    random = np.random.default_rng(0)
    for rows, width in ((1, 30), (64, 30), (1000, 30), (1, 2000)):
        names, data = [f"x{i}" for i in range(width)], random.normal(size=(rows, width)).tolist()
        yield f"{rows} x {width}", table(["float64"] * width), {"dataframe_split": {"columns": names, "data": data}}
    names = names[:30]
    data = random.normal(size=(1000, 30)).tolist()
    gaps = [[None if random.random() < 0.05 else cell for cell in row] for row in data]
    yield "1000 x 30, nulls", table(["float64"] * 30), {"dataframe_split": {"columns": names, "data": gaps}}
    mixed = [[1, 2, "red", *row[3:]] for row in data]
    types = ["int64", "int64", "utf8", *["float64"] * 27]
    yield "1000 x 30, of three types", table(types), {"dataframe_split": {"columns": names, "data": mixed}}
    records = [dict(zip(names, row, strict=True)) for row in data]
    yield "1000 x 30, records", table(["float64"] * 30), {"dataframe_records": records}
    for size in (32, 224):
        tensor = Tensor(name="picture", dtype="float32", shape=("n", 3, size, size))
        picture = (random.integers(0, 256, (1, 3, size, size)) / 256).tolist()
        yield f"picture 3 x {size} x {size}", Signature(inputs=Tensors(tensors=(tensor,))), {"inputs": picture}


def main() -> None:
    """Measure and print."""
    print("| body | bytes | orjson alone | decode | coerce |\n| --- | ---: | ---: | ---: | ---: |")
    for what, signature, said in bodies():
        body = json.dumps(said).encode()
        found = json_body.decode(body, signature)

        def read(body: bytes = body, signature: Signature = signature) -> Any:
            return json_body.decode(body, signature)

        def check(found: Any = found, signature: Signature = signature) -> Any:
            return coerce.inputs(found.data, signature, wire="json", at=found.at)

        took = (cost(lambda body=body: orjson.loads(body)), cost(read), cost(check))  # type: ignore[misc]
        print(f"| {what} | {len(body):,} | {' | '.join(f'{one:,.0f}' for one in took)} |")


if __name__ == "__main__":
    main()
