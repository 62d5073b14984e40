"""Compares our server with MLflow, MLServer, LitServe, BentoML and a floor, on the same models with the same client.

The full run writes benchmarks/results/peers.json, and from it the tables and plots of docs/performance.md. Run it on a
quiet machine; `--quick` gives rough figures of the main loads and writes neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import plan  # noqa: E402
import report  # noqa: E402
import serving  # noqa: E402
import systems  # noqa: E402
from run import Bench, allow_connections  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PARTS = ("loads", "both", "workers", "overload", "inprocess")


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures of the main loads in a few minutes")
    parser.add_argument("--only", default="", metavar="NAME[,NAME]", help="servers whose name begins so, in any case")
    parser.add_argument("--models", default="", metavar="NAME[,NAME]", help=", ".join(plan.MODELS))
    parser.add_argument("--parts", default="", metavar="NAME[,NAME]", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, help="instead of 5, or 2 if quick")
    parser.add_argument("--seconds", type=float, help="of each load, instead of 3, or 2 if quick")
    parser.add_argument("--no-pin", action="store_true", help="let server and client share all cores")
    parser.add_argument("--out", type=Path, help="where the measurements go")
    parser.add_argument("--add", action="store_true", help="add to what --out already has")
    parser.add_argument("--write", action="store_true", help="make the tables and plots of docs/ from this run")
    parser.add_argument("--report", action="store_true", help="measure nothing, make tables and plots from --out")
    parser.add_argument("--needs", action="store_true", help="print the environments that this run needs")
    return parser.parse_args()


def words(text: str) -> list[str]:
    """Return the words of a list with commas, in lower case."""
    return [word.strip().lower() for word in text.split(",") if word.strip()]


def chosen_systems(given: argparse.Namespace) -> list[systems.System]:
    """Return the servers that this run is about."""
    only = words(given.only)
    if only:
        return [one for one in systems.SYSTEMS if any(one.name.lower().startswith(word) for word in only)]
    return [one for one in systems.SYSTEMS if not given.quick or one.name in plan.QUICK_SYSTEMS]


def chosen_models(given: argparse.Namespace) -> list[str]:
    """Return the models that this run is about."""
    return words(given.models) or (list(plan.LOGISTIC) if given.quick else list(plan.MODELS))


def loads_of(system: systems.System, model: str, *, quick: bool) -> list[plan.Load]:
    """Return the loads for one server and model."""
    return [
        load
        for load in plan.LOADS
        if model in load.models and (load.quick or not quick) and (system.peer == "modelpack" or not load.arrow)
    ]


def prepare(bench: Bench, chosen: list[systems.System], models: list[str]) -> None:
    """Train and pack what is not there yet, and take note of the versions."""
    room = bench.room / "models"
    subprocess.run([sys.executable, str(HERE / "models.py"), str(room), *models], check=True)
    if any(system.peer == "mlflow" for system in chosen):
        for model in models:
            if not (room / model / "mlflow" / "MLmodel").exists():
                python = str(bench.venv("mlflow") / "bin" / "python")
                subprocess.run([python, str(HERE / "apps" / "pack_mlflow.py"), str(room / model)], check=True)
    for peer in sorted({system.peer for system in chosen} - {"floor", "modelpack"}):
        code = f"import importlib.metadata as m; print(m.version({peer!r}))"
        python = str(bench.venv(peer) / "bin" / "python")
        done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
        bench.results["versions"][peer] = done.stdout.strip()
    for ours in ("uvicorn", "scikit-learn", "numpy", "onnxruntime"):
        bench.results["versions"][ours] = importlib.metadata.version(ours)


def measure_loads(bench: Bench, chosen: list[systems.System], models: list[str], *, quick: bool) -> None:
    """Go round: each server in turn with each model, in another order each round."""
    for number in range(1, bench.effort.rounds + 1):
        turn = chosen[number % len(chosen) :] + chosen[: number % len(chosen)]
        for model in models:
            if model not in plan.LOGISTIC and number > bench.effort.other_rounds:
                continue
            for system in turn:
                loads = loads_of(system, model, quick=quick)
                if system.has(model) and loads:
                    measure = functools.partial(bench.measure, system, model, loads, number)
                    bench.attempt(f"round {number}", system, model, measure)


def measure(bench: Bench, chosen: list[systems.System], models: list[str], parts: list[str], *, quick: bool) -> None:
    """Do all parts of the run."""
    if "loads" in parts:
        measure_loads(bench, chosen, models, quick=quick)
    if "inprocess" in parts and any(system.peer == "modelpack" for system in chosen):
        for _ in range(3):
            bench.in_process()
    for system in chosen:
        if "both" in parts:
            bench.attempt("both cores", system, "logistic", functools.partial(bench.both_cores, system))
        if "workers" in parts and bench.effort.workers and system.grows:
            bench.attempt("workers", system, "logistic", functools.partial(bench.more_workers, system))
    for system in chosen:
        if "overload" in parts and system.has(plan.OVERLOAD_MODEL) and system.peer != "floor":
            bench.attempt(
                "overload",
                system,
                plan.OVERLOAD_MODEL,
                functools.partial(bench.overload, system, bench.effort.overload),
            )


def main() -> int:
    """Measure, and write what was measured."""
    given = arguments()
    chosen, models = chosen_systems(given), chosen_models(given)
    room = Path(os.environ.get("BENCH_ROOM") or ROOT / ".bench")
    out = given.out or (room / "quick.json" if given.quick or given.only else RESULTS)
    write = given.write or given.report or out == RESULTS
    if given.needs:
        print(*sorted({system.peer for system in chosen} & set(systems.PEERS)), *(["plots"] if write else []))
        return 0
    if not given.report:
        run(given, chosen, models, room, out)
    results = json.loads(out.read_text())
    print(report.markdown(results))
    if write:
        report.write(results, ROOT / "docs" / "performance.md")
        plots = [str(room / "venvs" / "plots" / "bin" / "python"), str(HERE / "plots.py")]
        subprocess.run([*plots, str(out), str(ROOT / "docs" / "images")], check=True)
    return 1 if results["failures"] else 0


def run(given: argparse.Namespace, chosen: list[systems.System], models: list[str], room: Path, out: Path) -> None:
    """Measure everything that was asked for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    serving.adopt_orphans()
    allow_connections()
    effort = plan.QUICK if given.quick else plan.FULL
    if given.rounds:
        effort = dataclasses.replace(effort, rounds=given.rounds, other_rounds=min(given.rounds, effort.other_rounds))
    if given.seconds:
        effort = dataclasses.replace(effort, seconds=given.seconds, overload_seconds=given.seconds)
    cores = serving.Cores() if given.no_pin else serving.Cores.apart()
    bench = Bench(room=room, out=out, effort=effort, cores=cores)
    if given.add and out.exists():
        bench.results = json.loads(out.read_text())
    parts = words(given.parts) or (["loads", "inprocess"] if given.quick else list(PARTS))
    start = time.monotonic()
    needed = {*models, *(["logistic"] if {"both", "workers", "inprocess"} & set(parts) else [])}
    needed |= {plan.OVERLOAD_MODEL} if "overload" in parts else set()
    prepare(bench, chosen, [model for model in plan.MODELS if model in needed])
    if cores.client:
        os.sched_setaffinity(0, cores.client)  # what this process does must not slow the servers
    measure(bench, chosen, models, parts, quick=given.quick)
    bench.results["minutes"] = round(bench.results.get("minutes", 0) + (time.monotonic() - start) / 60, 1)
    bench.save()


if __name__ == "__main__":
    sys.exit(main())
