"""The tables of docs/performance.md, made from measurements that were written down: nothing is timed here."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEERS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "peers"
RECORDED = Path(__file__).resolve().parent / "recorded.json"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module; it is run as a program's neighbour, not as a package."""
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.delitem(sys.modules, "report", raising=False)
    import report

    return report  # type: ignore[no-any-return]


@pytest.fixture
def results() -> dict[str, Any]:
    return json.loads(RECORDED.read_text())  # type: ignore[no-any-return]


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading, by their first cell."""
    section = text.partition(f"{heading}\n")[2].partition("\n#")[0]
    lines = [line[1:-1].split("|") for line in section.splitlines() if line.startswith("| ")]
    return {cells[0].strip(" *"): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


def test_a_load_has_the_median_the_spread_and_the_ratios(report: ModuleType, results: dict[str, Any]):
    rows = rows_of(report.markdown(results), "#### 1 row, JSON, 32 connections")

    assert list(rows) == ["floor", "modelpack, ONNX twin", "modelpack", "LitServe", "MLflow"]
    assert rows["modelpack"] == ["4,000", "3,000 to 5,000", "8.00", "16.0", "0.20", "40.00", "5.00", "0"]
    assert rows["MLflow"][4:] == ["0.01", "1.00", "0.12", "3"]


def test_each_bar_says_whether_it_is_met(report: ModuleType, results: dict[str, Any]):
    rows = rows_of(report.markdown(results), "### What we hold ourselves to")

    assert rows["1 row, 32 connections, ONNX twin: of the floor"] == ["≥ 0.65", "0.70", "yes"]
    assert rows["1 row, 32 connections, ONNX twin: MLflow"] == ["≥ 100 x", "140.00 x", "yes"]
    assert rows["1 row, 1 connection, native: added to `predict`"] == ["≤ 0.25 ms", "0.30 ms", "**no**"]
    assert rows["100,000 rows Arrow: of `predict` in process"] == ["≥ 0.7", "0.75", "yes"]
    assert rows["start to first answer: of MLflow's"] == ["≤ 0.4", "0.25", "yes"]
    assert rows["1 row of 2000 columns, 8 connections: MLflow"] == ["≥ 20 x", "not measured", ""]


def test_overload_counts_what_was_neither_answered_nor_refused(report: ModuleType, results: dict[str, Any]):
    text = report.markdown(results)

    assert rows_of(text, "### Overload")["modelpack"] == [
        *("5", "5,000", "950", "0.95", "3,950", "100", "40.0", "200 to 210"),
    ]
    rows = rows_of(text, "### What we hold ourselves to")
    assert rows["5 x overload: neither answered nor refused with 429, share"] == ["≤ 0", "0.02", "**no**"]
    assert rows["5 x overload: answers in time, of the peak"] == ["≥ 0.9", "1.00", "yes"]
    assert rows["5 x overload: p99 of accepted, of a full batch's time"] == ["≤ 3 x", "2.00 x", "yes"]


def test_bars_of_overload_are_about_what_was_really_offered(report: ModuleType, results: dict[str, Any]):
    """A point that was left out, or a client that could not keep up, is no measurement."""
    bar = "5 x overload: answers in time, of the peak"
    (point,) = [entry for entry in results["overload"] if entry["system"] == "modelpack" and entry["multiple"] == 5]

    for change in ({"multiple": 3}, {"offered": 0.5 * point["offered"]}):
        other = {**results, "overload": [{**point, **change}]}
        assert rows_of(report.markdown(other), "### What we hold ourselves to")[bar] == ["≥ 0.9", "not measured", ""]


def test_memory_of_a_further_worker_is_what_it_adds(report: ModuleType, results: dict[str, Any]):
    rows = rows_of(report.markdown(results), "### Start and memory")

    assert rows["modelpack"] == ["1.50", "120", "150", "1", "40.0"]
    assert rows["MLflow"] == ["6.00", "300", "400", "2", ""]


def test_what_failed_is_said(report: ModuleType, results: dict[str, Any]):
    assert "- LitServe, forest, round 1: the server ended" in report.markdown(results)


def test_each_plot_that_has_data_is_shown(report: ModuleType, results: dict[str, Any]):
    shown = re.findall(r"\(images/(peers-\w+\.svg)\)", report.markdown(results))

    assert shown == ["peers-throughput.svg", "peers-overload.svg"]


def test_columns_are_in_order(report: ModuleType, results: dict[str, Any]):
    results["loads"] += [
        {
            **copy.deepcopy(results["loads"][0]),
            "model": f"columns{count}",
            "rps": rps,
            "load": "json 1x8",
            "system": "modelpack",
        }
        for count, rps in ((100, 50.0), (10, 90.0))
    ]
    text = report.markdown(results)

    assert rows_of(text, "### Number of columns") == {"modelpack": ["90.0", "50.0"]}
    assert "| server, requests/s, 8 connections | 10 columns | 100 columns |" in text


def test_only_what_is_between_the_marks_is_written(report: ModuleType, results: dict[str, Any], tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{report.BEGIN}\nformer figures\n{report.END}\n\nafter\n")

    report.write(results, page)
    first = page.read_text()
    report.write(results, page)

    assert page.read_text() == first
    assert "former figures" not in first
    assert re.fullmatch(r"# Page\n\n.*\n\nafter\n", first, re.DOTALL)


def test_a_page_without_marks_is_left_alone(report: ModuleType, results: dict[str, Any], tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Page\n")

    with pytest.raises(SystemExit, match="has no lines"):
        report.write(results, page)

    assert page.read_text() == "# Page\n"


def test_the_page_of_figures_has_the_marks(report: ModuleType):
    text = (PEERS.parent.parent / "docs" / "performance.md").read_text()

    assert text.count(report.BEGIN) == text.count(report.END) == 1
