"""Makes the tables of docs/performance.md from what a run has measured. Measures nothing and starts nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = dict[str, Any]

MAIN, WIDE = "json 1x32", "json 1x8"
OVERLOAD = 5  # the multiple of capacity that the bars are about
BEGIN, END = "<!-- begin: scripts/bench peers -->", "<!-- end: scripts/bench peers -->"
OURS, TWIN, MLFLOW, FLOOR = "modelpack", "modelpack, ONNX twin", "MLflow", "floor"
WORDS = {"json": "JSON", "arrow": "Arrow"}
TITLES = {
    "logistic": "Scaler and logistic regression, 30 columns",
    "forest": "Forest of 100 trees, 30 columns",
    "boosting": "Histogram boosting, 30 columns",
    "mlp": "torch network, 30 numbers",
    "svm": "Support vector machine of 6000 vectors, 30 columns",
    "image": "ONNX network, pictures of 3 x 32 x 32",
    "columns10": "Logistic regression, 10 columns",
    "columns100": "Logistic regression, 100 columns",
    "columns2000": "Logistic regression, 2000 columns",
}


@dataclass(frozen=True)
class Bar:
    """What we hold ourselves to, and what was measured; ``less``: less is better."""

    claim: str
    least: float
    value: float | None
    unit: str = ""
    less: bool = False

    @property
    def met(self) -> bool | None:
        """Return whether it is met; None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.least if self.less else self.value >= self.least


def series(results: Results, what: str, model: str, load: str) -> dict[str, list[float]]:
    """Return what each server measured in each round."""
    found: dict[str, list[float]] = {}
    for entry in results["loads"]:
        if entry["model"] == model and entry["load"] == load:
            found.setdefault(entry["system"], []).append(entry[what])
    return found


def medians(results: Results, what: str, model: str, load: str) -> dict[str, float]:
    """Return the median of each server."""
    return {name: statistics.median(values) for name, values in series(results, what, model, load).items()}


def best_other(table: dict[str, float]) -> float | None:
    """Return the most of any server that is neither ours nor MLflow nor the floor."""
    others = [value for name, value in table.items() if name != FLOOR and not name.startswith((OURS, MLFLOW))]
    return max(others, default=None)


def number(value: float | None) -> str:
    """Return three digits of a number, with commas."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table: text in the first column, numbers in the others."""
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines] + [""]


def picture(name: str, text: str) -> list[str]:
    """Return the line that shows one of the plots of plots.py."""
    return [f"![{text}](images/peers-{name}.svg)", ""]


def title(load: str) -> str:
    """Return a load's name for people: "json 1x32" is 1 row as JSON on 32 connections."""
    *before, kind, size = load.split()
    rows, connections = size.split("x")
    text = (
        f"{int(rows):,} row{'s' * (rows != '1')}, {WORDS[kind]}, {connections} connection{'s' * (connections != '1')}"
    )
    return f"{text} ({' '.join(before)})" if before else text


def load_table(results: Results, model: str, load: str) -> list[str]:
    """Return one load's table: each server's median and spread, latency, and its ratios."""
    measured = series(results, "rps", model, load)
    if not measured:
        return []
    middle = medians(results, "rps", model, load)
    p50, p99 = medians(results, "p50", model, load), medians(results, "p99", model, load)
    bad = {name: sum(values) for name, values in series(results, "errors", model, load).items()}
    rows = []
    for name, value in sorted(middle.items(), key=lambda pair: -pair[1]):
        spread = f"{number(min(measured[name]))} to {number(max(measured[name]))}"
        bases = (middle.get(FLOOR), middle.get(MLFLOW), best_other(middle))
        ratios = [f"{value / base:.2f}" if base else "" for base in bases]
        label = f"**{name}**" if name.startswith(OURS) else name
        rows.append([label, number(value), spread, number(p50[name]), number(p99[name]), *ratios, str(bad[name])])
    head = [
        "server",
        "requests/s",
        "lowest to highest",
        "p50 ms",
        "p99 ms",
        "of floor",
        "x MLflow",
        "x best other",
        "errors",
    ]
    return [f"#### {title(load)}", "", *table(head, rows)]


def starts_table(results: Results) -> list[str]:
    """Return the table of start-up time and memory."""
    mine = [entry for entry in results["starts"] if entry["model"] == "logistic"]
    if not mine:
        return []
    more = {entry["system"]: entry for entry in results["workers"]}
    rows = []
    for name in dict.fromkeys(entry["system"] for entry in mine):
        own = [entry for entry in mine if entry["system"] == name]
        middle = {key: statistics.median(entry[key] for entry in own) for key in ("seconds", "pss", "rss", "processes")}
        added = ""
        if name in more and more[name]["workers"] > 1:
            added = number((more[name]["pss"] - middle["pss"]) / (more[name]["workers"] - 1))
        values = [f"{middle['seconds']:.2f}", number(middle["pss"]), number(middle["rss"])]
        rows.append([name, *values, f"{middle['processes']:.0f}", added])
    head = [
        "server",
        "start to first answer, s",
        "memory, MB",
        "RSS summed, MB",
        "processes",
        "each further worker, MB",
    ]
    return ["### Start and memory", "", *table(head, rows)]


def curves(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Return each server's overload curve, in the order of what was offered."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in results["overload"]:
        found.setdefault(entry["system"], []).append(entry)
    return {name: sorted(points, key=lambda point: point["multiple"]) for name, points in found.items()}


def overload_table(results: Results) -> list[str]:
    """Return the overload table: what came back of what was offered."""
    rows = []
    for name, points in curves(results).items():
        for point in points:
            counts = point["statuses"]
            refused = sum(value for key, value in counts.items() if key in ("429", "503"))
            lost = sum(value for key, value in counts.items() if key not in ("200", "429", "503"))
            rows.append(
                [
                    name,
                    f"{point['multiple']:g}",
                    *(
                        number(point["offered"]),
                        number(point["goodput"]),
                        f"{point['goodput'] / point['capacity']:.2f}",
                    ),
                    *(number(refused / point["seconds"]), number(lost / point["seconds"]), number(point["p99"])),
                    f"{number(point['pss_before'])} to {number(point['pss_peak'])}",
                ]
            )
    head = ["server", "x capacity", "offered/s", "good/s", "of capacity", "refused/s", "lost/s", "p99 ms", "memory, MB"]
    return (
        ["### Overload", "", *picture("overload", "Answers and latency under overload"), *table(head, rows)]
        if rows
        else []
    )


def by_columns(results: Results) -> dict[str, dict[int, float]]:
    """Return requests per second of each server, by number of columns."""
    found: dict[str, dict[int, float]] = {}
    for model in TITLES:
        if model.startswith("columns"):
            for name, value in medians(results, "rps", model, WIDE).items():
                found.setdefault(name, {})[int(model.removeprefix("columns"))] = value
    return found


def columns_table(results: Results) -> list[str]:
    """Return the table of cost against the number of columns."""
    found = by_columns(results)
    counts = sorted({count for points in found.values() for count in points})
    rows = [[name, *(number(points.get(count)) for count in counts)] for name, points in found.items()]
    head = ["server, requests/s, 8 connections", *(f"{count} columns" for count in counts)]
    return (
        ["### Number of columns", "", *picture("columns", "Requests per second by columns"), *table(head, rows)]
        if rows
        else []
    )


def in_process(results: Results) -> dict[str, float]:
    """Return the median times of the model alone, in milliseconds."""
    runs = results["inprocess"]
    return {key: statistics.median(run[key] for run in runs) for key in (runs[0] if runs else {})}


def in_process_table(results: Results) -> list[str]:
    """Return the table of the bare model's times."""
    rows = [[key, f"{value:.3f}"] for key, value in in_process(results).items()]
    return ["### The model alone, in process", "", *table(["what", "ms"], rows)] if rows else []


def ratio(upper: float | None, lower: float | None) -> float | None:
    """Return a ratio, or None if one side was not measured."""
    return upper / lower if upper is not None and lower else None


def bars(results: Results) -> list[Bar]:
    """Return what we hold ourselves to, and what was measured."""
    main, wide = medians(results, "rps", "logistic", MAIN), medians(results, "rps", "columns2000", WIDE)
    thousand = medians(results, "rps", "logistic", "json 1000x8")
    one = medians(results, "p50", "logistic", "json 1x1").get(OURS)
    alone = in_process(results)
    bare, bulk = alone.get("predict, 1 row, DataFrame"), alone.get("predict, 100000 rows, array")
    arrow = medians(results, "rps", "logistic", "arrow 100000x1")
    fastest = max((arrow[name] for name in (OURS, TWIN) if name in arrow), default=None)
    return [
        Bar("1 row, 32 connections, ONNX twin: of the floor", 0.65, ratio(main.get(TWIN), main.get(FLOOR))),
        Bar("1 row, 32 connections, ONNX twin: MLflow", 100, ratio(main.get(TWIN), main.get(MLFLOW)), "x"),
        Bar("1 row, 32 connections, ONNX twin: the best other", 15, ratio(main.get(TWIN), best_other(main)), "x"),
        Bar("1 row, 32 connections, native: MLflow", 35, ratio(main.get(OURS), main.get(MLFLOW)), "x"),
        Bar("1 row, 32 connections, native: the best other", 5, ratio(main.get(OURS), best_other(main)), "x"),
        Bar(
            "1 row, 1 connection, native: added to `predict`",
            0.25,
            one - bare if one and bare else None,
            "ms",
            less=True,
        ),
        Bar("1000 rows JSON, 8 connections: MLflow", 5, ratio(thousand.get(OURS), thousand.get(MLFLOW)), "x"),
        Bar("1000 rows JSON, 8 connections: the best other", 2, ratio(thousand.get(OURS), best_other(thousand)), "x"),
        Bar("100,000 rows Arrow: of `predict` in process", 0.7, fastest * bulk / 1000 if fastest and bulk else None),
        Bar("1 row of 2000 columns, 8 connections: MLflow", 20, ratio(wide.get(OURS), wide.get(MLFLOW)), "x"),
        *overload_bars(results),
        Bar("start to first answer: of MLflow's", 0.4, of_mlflow(results, "seconds"), less=True),
        Bar("memory, one worker: of MLflow's", 0.5, of_mlflow(results, "rss"), less=True),
    ]


def of_mlflow(results: Results, key: str) -> float | None:
    """Return what of a start we have, as a part of what MLflow has."""
    found = [
        [entry[key] for entry in results["starts"] if entry["system"] == name and entry["model"] == "logistic"]
        for name in (OURS, MLFLOW)
    ]
    return statistics.median(found[0]) / statistics.median(found[1]) if all(found) else None


def overload_bars(results: Results) -> list[Bar]:
    """Return the bars of the overload curve, where as much was really offered as they speak of."""
    points = curves(results).get(OURS, [])
    due = [point for point in points if point["multiple"] == OVERLOAD]
    most = next((point for point in due if point["offered"] > 0.9 * OVERLOAD * point["capacity"]), None)
    peak = max((point["goodput"] for point in points), default=None)
    lost = None
    if most:
        asked = sum(most["statuses"].values())
        lost = sum(v for key, v in most["statuses"].items() if key not in ("200", "429")) / asked if asked else None
    tail = most["p99"] / most["batch_p50"] if most and most["p99"] and most.get("batch_p50") else None
    grown = most["pss_peak"] / most["pss_before"] if most else None
    return [
        Bar("5 x overload: answers in time, of the peak", 0.9, ratio(most["goodput"] if most else None, peak)),
        Bar("5 x overload: neither answered nor refused with 429, share", 0.0, lost, less=True),
        Bar("5 x overload: p99 of accepted, of a full batch's time", 3, tail, "x", less=True),
        Bar("5 x overload: memory, of before", 1.1, grown, "x", less=True),
    ]


def bars_table(results: Results) -> list[str]:
    """Return the table of bars: what was asked, what was measured, whether it is met."""
    rows = []
    for bar in bars(results):
        sign, unit = "≤" if bar.less else "≥", f" {bar.unit}" if bar.unit else ""
        value = "not measured" if bar.value is None else f"{bar.value:.2f}{unit}"
        rows.append(
            [bar.claim, f"{sign} {bar.least:g}{unit}", value, {None: "", True: "yes", False: "**no**"}[bar.met]]
        )
    return ["### What we hold ourselves to", "", *table(["load", "bar", "measured", "met"], rows)]


def introduction(results: Results) -> list[str]:
    """Return what was run, on what."""
    machine, versions = results["machine"], results["versions"]
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    effort = results["effort"]
    pinned = "the server on one core and wrk on the other" if machine["apart"] else "server and client share all cores"
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}.",
        f"One worker each; {pinned}.",
        f"Medians of {effort['rounds']} rounds in turn, {effort['other_rounds']} for models other than the first;",
        f"{effort['seconds']:g} s for each load.",
        f"{said}.",
        "",
    ]


def markdown(results: Results) -> str:
    """Return the whole section that the harness writes."""
    lines = [*introduction(results), *bars_table(results)]
    for model, text in TITLES.items():
        loads = dict.fromkeys(entry["load"] for entry in results["loads"] if entry["model"] == model)
        if loads and not model.startswith("columns"):
            lines += [f"### {text}", ""]
            lines += picture("throughput", "Requests per second") if model == "logistic" and MAIN in loads else []
            for load in loads:
                lines += load_table(results, model, load)
    sections: tuple[Callable[[Results], list[str]], ...] = (
        *(columns_table, starts_table, overload_table, in_process_table, failures_list),
    )
    for section in sections:
        lines += section(results)
    return "\n".join(lines)


def failures_list(results: Results) -> list[str]:
    """Return what could not be measured, and why."""
    lines = [
        f"- {entry['system']}, {entry['model']}, {entry['part']}: {entry['error'].splitlines()[0][:160]}"
        for entry in results["failures"]
    ]
    return ["### Not measured", "", *lines, ""] if lines else []


def write(results: Results, page: Path) -> None:
    """Put the section between its marks in a page."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{markdown(results)}\n{END}{after}")
