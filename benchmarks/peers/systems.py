"""The servers that are compared: how each is started, asked in its own protocol, and what its answer says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one start of a server finds its model, and where it listens."""

    folder: Path
    venv: Path
    port: int
    workers: int = 1

    def program(self, name: str) -> str:
        """Return the path of a program of the server's own environment."""
        return str(self.venv / "bin" / name)


@dataclass(frozen=True, kw_only=True)
class System:
    """One server, or one way to run it."""

    name: str
    peer: str  # what it is a way to run; also the name of its environment
    command: Callable[[Place], list[str]]
    path: str
    body: Callable[[Any, list[str] | None], Any]
    answer: Callable[[Any], Any]
    env: Callable[[Place], Mapping[str, str]] = field(default=lambda place: {})
    prepare: Callable[[Place], None] = field(default=lambda place: None)
    models: frozenset[str] | None = None  # None: all
    grows: bool = True  # whether it can run with several workers

    def has(self, model: str) -> bool:
        """Return whether this server runs the model in the comparison."""
        return self.models is None or model in self.models

    def ask(self, rows: Any, columns: list[str] | None) -> bytes:
        """Return the JSON body that asks for these rows."""
        return json.dumps(self.body(rows, columns)).encode()

    def check(self, reply: bytes, want: Any) -> str | None:
        """Return what is wrong with a reply, or None if it says what the model itself says."""
        if self.name == "floor":
            return None
        try:
            got = np.asarray(self.answer(json.loads(reply)))
            got = got.reshape(want.shape)
        except (ValueError, KeyError, IndexError, TypeError) as exc:
            return f"no answer of the form {want.shape}: {exc}: {reply[:200]!r}"
        if np.issubdtype(want.dtype, np.integer):
            return None if (got == want).all() else f"{int((got != want).sum())} of {want.size} labels differ"
        return None if np.allclose(got, want, rtol=1e-3, atol=1e-5) else "the numbers differ"


def invocations(rows: Any, columns: list[str] | None) -> Any:
    """Return MLflow's form of a request, which is ours too."""
    if columns is None:
        return {"inputs": rows.tolist()}
    return {"dataframe_split": {"columns": columns, "data": rows.tolist()}}


def open_inference(rows: Any, columns: list[str] | None) -> Any:
    """Return the open inference protocol's form of a request, which MLServer takes."""
    kind = {"float64": "FP64", "float32": "FP32"}[str(rows.dtype)]
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": kind, "data": rows.ravel().tolist()}
    return {"inputs": [{**tensor, "parameters": {"content_type": "np"}}]}


def modelpack(name: str, folder: str, flavor: str | None, models: frozenset[str] | None = None) -> System:
    """Return one way to run our own server."""

    def command(place: Place) -> list[str]:
        words = [sys.executable, "-m", "modelpack", "serve", str(place.folder / folder), "--port", str(place.port)]
        words += ["--workers", str(place.workers)]
        return words + (["--flavor", flavor] if flavor else [])

    return System(
        name=name,
        peer="modelpack",
        command=command,
        path="/invocations",
        body=invocations,
        answer=lambda reply: reply["predictions"],
        models=models,
    )


def mlserver(name: str, *, process: bool = True, batch: int = 0, models: frozenset[str] | None = None) -> System:
    """Return one way to run MLServer; ``process``: predict in a process of its own, which is its default."""

    def prepare(place: Place) -> None:
        folder = place.folder / name
        folder.mkdir(exist_ok=True)
        ports = {"http_port": place.port, "grpc_port": place.port + 1, "metrics_port": place.port + 2}
        workers = place.workers if process else 0
        settings = {"host": "127.0.0.1", "debug": False, "parallel_workers": workers, **ports}
        (folder / "settings.json").write_text(json.dumps(settings))
        plain = place.folder / "plain.joblib"
        runtime = "mlserver_sklearn.SKLearnModel" if plain.exists() else "mlserver_app.Runtime"
        uri = str(plain if plain.exists() else place.folder)
        model: dict[str, Any] = {"name": "served", "implementation": runtime, "parameters": {"uri": uri}}
        if batch:
            model |= {"max_batch_size": batch, "max_batch_time": 0.005}
        (folder / "model-settings.json").write_text(json.dumps(model))

    return System(
        name=name,
        peer="mlserver",
        command=lambda place: [place.program("mlserver"), "start", str(place.folder / name)],
        path="/v2/models/served/infer",
        body=open_inference,
        answer=lambda reply: reply["outputs"][0]["data"],
        prepare=prepare,
        env=lambda place: {"PYTHONPATH": str(APPS)},
        models=models,
        grows=process,
    )


def litserve(name: str, *, batch: int = 1, models: frozenset[str] | None = None) -> System:
    """Return one way to run LitServe."""
    app = str(APPS / "litserve_app.py")
    return System(
        name=name,
        peer="litserve",
        command=lambda place: [
            *(place.program("python"), app, str(place.folder)),
            *(str(place.port), str(place.workers), str(batch)),
        ],
        path="/predict",
        body=lambda rows, columns: {"input": rows.tolist()},
        answer=lambda reply: reply["output"],
        models=models,
    )


def bentoml(name: str, *, batch: int = 1, models: frozenset[str] | None = None) -> System:
    """Return one way to run BentoML."""

    def env(place: Place) -> dict[str, str]:
        said = {"BENCH_MODEL": str(place.folder), "BENCH_WORKERS": str(place.workers), "BENCH_BATCH": str(batch)}
        return {**said, "BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(place.folder / "bentoml")}

    return System(
        name=name,
        peer="bentoml",
        command=lambda place: [
            *(place.program("bentoml"), "serve", "bentoml_app:Served", "--working-dir", str(APPS)),
            *("--host", "127.0.0.1", "--port", str(place.port)),
        ],
        path="/predict",
        body=lambda rows, columns: {"data": rows.tolist()},
        answer=lambda reply: reply,
        env=env,
        models=models,
    )


def mlflow_answer(reply: Any) -> Any:
    """Return what MLflow answers; graphs answer with the name of their output."""
    predictions = reply["predictions"]
    return next(iter(predictions.values())) if isinstance(predictions, dict) else predictions


FLOOR = System(
    name="floor",
    peer="floor",
    command=lambda place: [
        *(sys.executable, "-m", "uvicorn", "floor:app", "--app-dir", str(APPS), "--port", str(place.port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--lifespan", "off"),
    ],
    path="/invocations",
    body=invocations,
    answer=lambda reply: reply,
    grows=False,
)

MLFLOW = System(
    name="MLflow",
    peer="mlflow",
    command=lambda place: [
        *(place.program("mlflow"), "models", "serve", "-m", str(place.folder / "mlflow"), "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(place.port), "--workers", str(place.workers)),
    ],
    path="/invocations",
    body=invocations,
    answer=mlflow_answer,
    env=lambda place: {
        "PATH": f"{place.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "UVICORN_ACCESS_LOG": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    },
)

MAIN = frozenset({"logistic"})
TWINS = frozenset({"logistic", "forest", "boosting"})
SYSTEMS = (
    FLOOR,
    modelpack("modelpack", "package", None),
    modelpack("modelpack, ONNX twin", "twin", "onnx", TWINS),
    MLFLOW,
    mlserver("MLServer"),
    mlserver("MLServer, one process", process=False, models=MAIN),
    mlserver("MLServer, batching", batch=64, models=MAIN),
    litserve("LitServe"),
    litserve("LitServe, batching", batch=32, models=MAIN | {"forest", "svm"}),
    bentoml("BentoML"),
    bentoml("BentoML, batching", batch=64, models=MAIN | {"forest", "svm"}),
)
OURS = ("modelpack", "modelpack, ONNX twin")
PEERS = ("mlflow", "mlserver", "litserve", "bentoml")
