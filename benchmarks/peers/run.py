"""Measures our server, its peers and the floor with the same models and the same client, in turn, round by round.

main.py says which, in what order. What was measured is kept as JSON; report.py makes tables of it, plots.py pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plan
import serving
import systems

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"


class Bench:
    """One run: where things lie, and what was measured so far."""

    def __init__(self, *, room: Path, out: Path, effort: plan.Effort, cores: serving.Cores) -> None:
        self.room, self.out, self.effort, self.cores = room, out, effort, cores
        self.results: dict[str, Any] = {
            "machine": machine(cores),
            "effort": dataclasses.asdict(effort),
            "versions": {},
            **{key: [] for key in ("starts", "loads", "workers", "overload", "inprocess", "failures")},
        }

    def venv(self, peer: str) -> Path:
        """Return the environment of a peer; ours and the floor's is the one this runs in."""
        return Path(sys.prefix) if peer in ("modelpack", "floor") else self.room / "venvs" / peer

    def add(self, key: str, **entry: Any) -> None:
        """Keep one measurement and write all of them, so that a run that is cut short loses nothing."""
        self.results[key].append(entry)
        self.save()

    def save(self) -> None:
        """Write all that was measured so far."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.results, indent=1) + "\n")

    def folder(self, model: str) -> Path:
        """Return where a model lies."""
        return self.room / "models" / model

    def rows(self, model: str, count: int) -> tuple[Any, Any]:
        """Return so many rows to ask, and what the model itself answers."""
        rows, want = arrays(self.folder(model))
        return np.resize(rows, (count, *rows.shape[1:])), np.resize(want, (count, *want.shape[1:]))

    def body(self, system: systems.System, model: str, rows: int, *, arrow: bool = False) -> Path:
        """Return a file with the body of a request."""
        shape = system.body.__name__ if system.body.__name__ != "<lambda>" else system.peer
        path = self.room / "bodies" / f"{model}-{rows}-{'arrow' if arrow else shape}"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            data, _ = self.rows(model, rows)
            columns = names(self.folder(model), data)
            path.write_bytes(to_arrow(data, columns) if arrow else system.ask(data, columns))
        return path

    def wrong(self, system: systems.System, model: str, port: int, load: plan.Load) -> str | None:
        """Return what is wrong with the server's answer to this load's request, or None."""
        kind = systems.ARROW if load.arrow else systems.JSON
        body = self.body(system, model, load.rows, arrow=load.arrow)
        headers = {"Content-Type": kind, "Accept": kind if load.arrow else "*/*"}
        status, reply = serving.post(port, system.path, body.read_bytes(), headers)
        if status != 200:
            return f"status {status}: {reply[:200]!r}"
        _, want = self.rows(model, load.rows)
        if load.arrow:
            return None if (from_arrow(reply) == want).all() else "the labels differ"
        return system.check(reply, want)

    @contextlib.contextmanager
    def started(self, system: systems.System, model: str, **say: Any) -> Iterator[serving.Started]:
        """Start a server, keep how long that took and what it weighs, stop it at the end."""
        workers = say.pop("workers", 1)
        cores = say.pop("cores", self.cores)
        port = serving.free_port()
        place = systems.Place(folder=self.folder(model), venv=self.venv(system.peer), port=port, workers=workers)
        system.prepare(place)
        first = plan.Load(rows=1, connections=1, models=(model,))
        log = self.room / "logs" / f"{system.name}-{model}.log".replace(" ", "-").replace(",", "")

        def answered() -> str | None:
            return self.wrong(system, model, port, first)

        self.body(system, model, 1)
        env = {**clean_environment(self.room), **system.env(place)}
        command = system.command(place)
        with serving.server(command, port=port, env=env, cores=cores, log=log, answered=answered) as server:
            yield server

    def wrk(self, system: systems.System, model: str, port: int, load: plan.Load, seconds: float) -> dict[str, Any]:
        """Put a load on the server and return what wrk says."""
        kind = systems.ARROW if load.arrow else systems.JSON
        body = self.body(system, model, load.rows, arrow=load.arrow)
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        command += ["-s", str(APPS / "post.lua"), f"http://127.0.0.1:{port}{system.path}", "--", str(body), kind]
        done = subprocess.run(
            [*on(frozenset() if load.both else self.cores.client), *command, *([kind] if load.arrow else [])],
            capture_output=True,
            text=True,
            timeout=seconds + 90,
        )
        if done.returncode:
            raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        bad = sum(result.pop(key) for key in ("connect", "read", "write", "timeout", "status"))
        return {**result, "errors": bad, "rps": (result["requests"] - min(bad, result["requests"])) / result["seconds"]}

    def measure(self, system: systems.System, model: str, loads: list[plan.Load], number: int) -> None:
        """Start one server, check it, put each load on it, stop it."""
        say = {"round": number, "system": system.name, "model": model}
        with self.started(system, model) as server:
            self.add("starts", **say, seconds=server.seconds, **serving.memory(server.pid))
            for load in loads:
                if fault := self.wrong(system, model, server.port, load):
                    raise RuntimeError(f"wrong answer to {load.name}: {fault}")
                slow = 3 if load.rows >= 100_000 else 1
                self.wrk(system, model, server.port, load, self.effort.warm)
                result = self.wrk(system, model, server.port, load, slow * self.effort.seconds)
                if result["requests"] < 3 * load.connections:  # too few to divide: some wait for longer than the load
                    result = self.wrk(system, model, server.port, load, 10 * self.effort.seconds)
                self.add("loads", **say, load=load.name, **result)
                print(f"  {load.name:16} {result['rps']:10.1f}/s  p50 {result['p50']:.2f} ms", flush=True)
                if fault := self.wrong(system, model, server.port, load):
                    raise RuntimeError(f"wrong answer after {load.name}: {fault}")

    def attempt(self, what: str, system: systems.System, model: str, action: Callable[[], None]) -> None:
        """Do one part of the run; keep what went wrong and go on."""
        print(f"{time.strftime('%H:%M:%S')} {what}: {system.name}, {model}", flush=True)
        failures = self.results["failures"]
        before = (what, system.name, model)
        failures[:] = [one for one in failures if (one["part"], one["system"], one["model"]) != before]
        try:
            action()
        except (RuntimeError, OSError, subprocess.SubprocessError, json.JSONDecodeError) as exc:
            print(f"  failed: {exc}", flush=True)
            self.add("failures", part=what, system=system.name, model=model, error=str(exc)[:500])

    def both_cores(self, system: systems.System) -> None:
        """Measure the main load once more with both cores for the server and the client together."""
        load = plan.Load(rows=1, connections=32, models=plan.LOGISTIC, both=True)
        with self.started(system, "logistic", cores=serving.Cores()) as server:
            self.wrk(system, "logistic", server.port, load, self.effort.warm)
            result = self.wrk(system, "logistic", server.port, load, self.effort.seconds)
            self.add("loads", round=1, system=system.name, model="logistic", load="both cores json 1x32", **result)

    def more_workers(self, system: systems.System) -> None:
        """Weigh a server of several workers."""
        with self.started(system, "logistic", workers=self.effort.workers) as server:
            load = plan.Load(rows=1, connections=64, models=plan.LOGISTIC)
            self.wrk(system, "logistic", server.port, load, 2)
            self.add("workers", system=system.name, workers=self.effort.workers, **serving.memory(server.pid))

    def overload(self, system: systems.System, multiples: tuple[float, ...]) -> None:
        """Offer parts and multiples of what the server can do, and keep what comes back."""
        model = plan.OVERLOAD_MODEL
        loads = [
            plan.Load(rows=plan.OVERLOAD_ROWS, connections=count, models=()) for count in plan.OVERLOAD_CONNECTIONS
        ]
        with self.started(system, model) as server:
            batch = plan.Load(rows=plan.OVERLOAD_BATCH, connections=1, models=())
            self.wrk(system, model, server.port, loads[0], 1)
            full = self.wrk(system, model, server.port, batch, 2)
            seconds = self.effort.overload_seconds
            capacity = max(self.wrk(system, model, server.port, load, seconds)["rps"] for load in loads)
            self.drained(system, model, server.port)
            say = {"system": system.name, "capacity": capacity, "batch_p50": full["p50"]}
            for multiple in multiples:
                if multiple * capacity > plan.OVERLOAD_MOST:
                    continue
                entry = self.offer(system, model, server, multiple * capacity)
                self.add("overload", **say, multiple=multiple, **entry)
                print(f"  x{multiple:<4} {entry['offered']:9.0f}/s -> {entry['goodput']:9.1f}/s", flush=True)
                self.drained(system, model, server.port)

    def offer(self, system: systems.System, model: str, server: serving.Started, rate: float) -> dict[str, Any]:
        """Run the open loop once, and watch the server's memory meanwhile."""
        body = self.body(system, model, plan.OVERLOAD_ROWS)
        command = [*on(self.cores.client), sys.executable, str(HERE / "openloop.py"), "--port", str(server.port)]
        command += ["--path", system.path, "--body", str(body), "--rate", str(rate)]
        command += ["--seconds", str(self.effort.overload_seconds), "--deadline", str(plan.OVERLOAD_DEADLINE)]
        weights = [serving.memory(server.pid)["pss"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            try:
                while client.poll() is None:
                    time.sleep(0.5)
                    weights.append(serving.memory(server.pid)["pss"])
                assert client.stdout is not None
                result: dict[str, Any] = json.loads(client.stdout.read())
            finally:
                client.kill()
        return {**result, "pss_before": weights[0], "pss_peak": max(weights)}

    def drained(self, system: systems.System, model: str, port: int) -> None:
        """Wait until the server answers promptly again."""
        body = self.body(system, model, plan.OVERLOAD_ROWS).read_bytes()
        until = time.perf_counter() + 60
        while time.perf_counter() < until:
            start = time.perf_counter()
            with contextlib.suppress(OSError):
                status, _ = serving.post(port, system.path, body, {"Content-Type": systems.JSON}, timeout=5)
                if status == 200 and time.perf_counter() - start < 0.5:
                    return
            time.sleep(0.2)
        raise RuntimeError("the server does not answer promptly a minute after the load ended")

    def in_process(self) -> None:
        """Time the bare model on the server's core."""
        command = [*on(self.cores.server), sys.executable, str(HERE / "inprocess.py"), str(self.folder("logistic"))]
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(self.room), timeout=120)
        if done.returncode:
            self.add("failures", part="in process", system="", model="logistic", error=done.stderr[-500:])
            return
        self.add("inprocess", **json.loads(done.stdout))


@functools.cache
def arrays(folder: Path) -> tuple[Any, Any]:
    """Return what is asked, and what the model answers."""
    return np.load(folder / "rows.npy"), np.load(folder / "want.npy")


def names(folder: Path, rows: Any) -> list[str] | None:
    """Return the names of the columns; None for a model of tensors."""
    if not (folder / "named.joblib").exists():
        return None
    return list(map(str, json.loads((folder / "columns.json").read_text())))


def to_arrow(rows: Any, columns: list[str] | None) -> bytes:
    """Return a table as an Arrow stream."""
    import pyarrow as pa

    assert columns is not None
    table = pa.table({name: np.ascontiguousarray(rows[:, index]) for index, name in enumerate(columns)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_arrow(reply: bytes) -> Any:
    """Return the only column of an Arrow stream."""
    import pyarrow as pa

    return pa.ipc.open_stream(reply).read_all().column(0).to_numpy()


def on(cores: frozenset[int]) -> list[str]:
    """Return the words that keep a command to these cores."""
    return ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []


def clean_environment(room: Path) -> dict[str, str]:
    """Return the environment that all servers get: without settings of kernels and of Python that slow some of them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OPENBLAS_", "PYTHON", "VIRTUAL_"))}
    return {**kept, "MODELPACK_TRUST_STORE": str(room / "trust")}


def allow_connections() -> None:
    """Let this process and what it starts open many files: overload takes a connection for each request in flight."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def machine(cores: serving.Cores) -> dict[str, Any]:
    """Return what the machine is."""
    model = "unknown"
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "apart": bool(cores.server),
        "load_before": round(os.getloadavg()[0], 2),
    }
