"""Draws the plots of docs/performance.md: `plots.py RESULTS.json FOLDER`.

Needs matplotlib, in an environment of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

sys.path.insert(0, str(Path(__file__).resolve().parent))
import report

OURS, PEER, FLOOR = "#0b6e4f", "#8895a3", "#222222"
STYLE = {"svg.hashsalt": "modelpack", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
LINES = ("-", "--", "-.", ":")


def colour(name: str) -> str:
    """Return the colour of a server."""
    return OURS if name.startswith("modelpack") else FLOOR if name == "floor" else PEER


def throughput(results: dict[str, Any], folder: Path) -> None:
    """Draw requests per second of the main load, on a logarithmic axis."""
    table = report.medians(results, "rps", "logistic", report.MAIN)
    if not table:
        return
    pairs = sorted(table.items(), key=lambda pair: pair[1])
    figure, axes = pyplot.subplots(figsize=(7, 0.4 * len(pairs) + 1))
    for place, (name, value) in enumerate(pairs):
        axes.plot(value, place, marker="o", markersize=8, color=colour(name))
        axes.annotate(f"{value:,.0f}", (value, place), xytext=(8, -3), textcoords="offset points")
    axes.set_yticks(range(len(pairs)), [name for name, _ in pairs])
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_xscale("log")
    axes.set_xlabel("requests per second: 1 row as JSON, 32 connections, one worker on one core")
    save(figure, folder / "peers-throughput.svg")


def overload(results: dict[str, Any], folder: Path) -> None:
    """Draw goodput and latency against what was offered, both relative to what each server can do."""
    curves = report.curves(results)
    if not curves:
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    for index, (name, points) in enumerate(curves.items()):
        style = {"color": OURS if name.startswith("modelpack") else f"C{index}", "linestyle": LINES[index % 4]}
        style |= {"marker": "o", "markersize": 3, "label": name}
        left.plot([p["multiple"] for p in points], [p["goodput"] / p["capacity"] for p in points], **style)
        known = [p for p in points if p["p99"] is not None]
        right.plot([p["multiple"] for p in known], [p["p99"] for p in known], **style)
    left.set_xlabel("offered load / capacity")
    left.set_ylabel("answers within a second / capacity")
    left.set_ylim(0, None)
    right.set_xlabel("offered load / capacity")
    right.set_ylabel("p99 of accepted requests, ms")
    right.set_yscale("log")
    left.legend(fontsize=7)
    save(figure, folder / "peers-overload.svg")


def columns(results: dict[str, Any], folder: Path) -> None:
    """Draw requests per second against the number of columns."""
    lines = report.by_columns(results)
    if not lines:
        return
    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    for index, (name, points) in enumerate(lines.items()):
        shade = OURS if name.startswith("modelpack") else "#888888" if name == "floor" else f"C{index}"
        axes.plot(list(points), list(points.values()), color=shade, linestyle=LINES[index % 4], marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("columns")
    axes.set_ylabel("requests per second, 1 row, 8 connections")
    axes.legend(fontsize=7)
    save(figure, folder / "peers-columns.svg")


def save(figure: Any, path: Path) -> None:
    """Write a plot, the same bytes for the same data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Draw all plots."""
    results = json.loads(Path(sys.argv[1]).read_text())
    pyplot.rcParams.update(STYLE)
    for draw in (throughput, overload, columns):
        draw(results, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
