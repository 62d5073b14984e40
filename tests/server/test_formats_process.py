"""A real server and clients that know no more than its documentation: pyarrow, numpy, pandas, httpx."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

import modelpack

pytestmark = pytest.mark.slow

ARROW, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
PARQUET, NPY, NPZ = "application/vnd.apache.parquet", "application/x-npy", "application/x-npz"
CSV, JSON = "text/csv", "application/json"
ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 3)), columns=["a", "b", "c"])
LABELS = np.where(ROWS["a"] + ROWS["b"] > 0, "up", "down")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Any]]:
    """Return a client of a running ``modelpack serve``, and the model it serves."""
    model = LogisticRegression().fit(ROWS, LABELS)
    package = modelpack.save(model, tmp_path_factory.mktemp("served") / "labels", example=ROWS.head())
    command = [str(Path(sys.executable).with_name("modelpack")), "serve", str(package.path), "--port", "0"]
    process = subprocess.Popen([*command, "--max-body", "1000000"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        with httpx.Client(base_url=found[0], timeout=60) as client:
            yield client, model
    finally:
        process.terminate()
        process.communicate(timeout=60)


def bodies() -> dict[str, bytes]:
    """Return the rows in each format, as its own library writes them."""
    table = pa.Table.from_pandas(ROWS, preserve_index=False)
    stream, npy, npz = pa.BufferOutputStream(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, 100)
    np.save(npy, ROWS.to_numpy())
    np.savez_compressed(npz, **{name: ROWS[name].to_numpy() for name in ROWS})
    return {
        JSON: json.dumps({"dataframe_split": ROWS.to_dict("split")}).encode(),
        ARROW: bytes(stream.getvalue()),
        FILE: feather(ROWS),
        PARQUET: ROWS.to_parquet(),
        NPY: npy.getvalue(),
        NPZ: npz.getvalue(),
        CSV: ROWS.to_csv(index=False).encode(),
    }


def feather(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_feather(sink)
    return sink.getvalue()


READ: dict[str, Any] = {
    JSON: lambda body: json.loads(body)["predictions"],
    ARROW: lambda body: pa.ipc.open_stream(body).read_all()["prediction"].to_pylist(),
    PARQUET: lambda body: pd.read_parquet(io.BytesIO(body))["prediction"].tolist(),
    NPY: lambda body: np.load(io.BytesIO(body)).tolist(),
    NPZ: lambda body: next(iter(np.load(io.BytesIO(body)).values())).tolist(),
    CSV: lambda body: pd.read_csv(io.BytesIO(body))["prediction"].tolist(),
}


def test_every_client_gets_the_labels_of_the_model(served: tuple[httpx.Client, Any]) -> None:
    client, model = served
    expected = model.predict(ROWS).tolist()
    for sent, body in bodies().items():
        for wanted, read in READ.items():
            headers = {"Content-Type": sent, "Accept": wanted}
            reply = client.post("/invocations", content=body, headers=headers)
            assert (reply.status_code, reply.headers["content-type"]) == (200, wanted), reply.text
            assert read(reply.content) == expected, (sent, wanted)


def test_probabilities_are_exact_and_compressed_bodies_are_read(served: tuple[httpx.Client, Any]) -> None:
    client, model = served
    query = {"params": '{"method": "predict_proba"}'}
    body = pa.Codec("zstd").compress(bodies()[ARROW])
    headers = {"Content-Type": ARROW, "Content-Encoding": "zstd", "Accept": NPY}
    reply = client.post("/invocations", content=bytes(body), headers=headers, params=query)
    np.testing.assert_array_equal(np.load(io.BytesIO(reply.content)), model.predict_proba(ROWS))


def test_damaged_bodies_are_400_and_the_server_goes_on(served: tuple[httpx.Client, Any]) -> None:
    client, _ = served
    for media, body in bodies().items():
        for damaged in (b"", body[: len(body) // 2], body[:7], b"\xff" * 100):
            if media == CSV and damaged == body[:7]:
                continue  # a header without rows is whole
            reply = client.post("/invocations", content=damaged, headers={"Content-Type": media})
            assert (reply.status_code, reply.json()["status"]) == (400, 400), (media, damaged[:20])
    bomb = gzip.compress(bytes(50_000_000))
    reply = client.post("/invocations", content=bomb, headers={"Content-Type": ARROW, "Content-Encoding": "gzip"})
    assert (reply.status_code, reply.json()["code"]) == (413, "body-too-large")
    assert client.get("/ping").status_code == 200
