"""Metrics as text: the format of Prometheus (0.0.4), and OpenMetrics (1.0.0), which differs from it in few places.

Both are a few lines of plain text, and what we tell is counted elsewhere: in memory that processes share, and by
looking things up when asked. So nothing of a client library would be left to use but what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modelpack_server.codecs.negotiation import choose
from modelpack_server.problems import HttpProblem

__all__ = ["OPENMETRICS", "TEXT", "Family", "Sample", "accepted", "counter", "gauge", "histogram", "info", "written"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: ``suffix`` is what its name has beyond that of its family."""

    value: float
    labels: Labels
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Numbers of one meaning, and the words that say which; ``name`` is without the suffix of counters and infos."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    words: str
    samples: Sequence[Sample]


def counter(name: str, words: str, values: float | Iterable[tuple[Labels, float]]) -> Family:
    """Return what only grows."""
    return Family(name, "counter", words, [Sample(value, labels, "_total") for labels, value in _each(values)])


def gauge(name: str, words: str, values: float | Iterable[tuple[Labels, float]]) -> Family:
    """Return what goes up and down."""
    return Family(name, "gauge", words, [Sample(value, labels) for labels, value in _each(values)])


def info(name: str, words: str, labels: Labels) -> Family:
    """Return what is no number: labels of a 1."""
    return Family(name, "info", words, [Sample(1, labels, "_info")])


def histogram(name: str, words: str, bounds: Sequence[float], counts: Sequence[float], total: float) -> Family:
    """Return how often values were up to each bound, and what they add up to; the last of ``counts`` is the rest."""
    samples, seen = [], 0.0
    for bound, count in zip([*map(float, bounds), "+Inf"], counts, strict=True):
        seen += count
        samples.append(Sample(seen, {"le": str(bound)}, "_bucket"))
    return Family(name, "histogram", words, [*samples, Sample(seen, {}, "_count"), Sample(total, {}, "_sum")])


def _each(values: float | Iterable[tuple[Labels, float]]) -> Iterable[tuple[Labels, float]]:
    return [({}, values)] if isinstance(values, int | float) else values


def accepted(accept: str | None) -> str:
    """Return the content type of the answer to an ``Accept``; who takes neither gets what everybody can read."""
    names = {kind.partition(";")[0]: kind for kind in (TEXT, OPENMETRICS)}
    try:
        return names[choose(accept, tuple(names))]
    except HttpProblem:
        return TEXT


def written(families: Iterable[Family], kind: str = TEXT) -> bytes:
    """Return the families as one of the two formats has them."""
    lines: list[str] = []
    open_metrics = kind == OPENMETRICS
    for family in families:
        name, sort = family.name, family.kind
        if not open_metrics:
            # There a family is called as its numbers are, and an info is a gauge.
            name += {"counter": "_total", "info": "_info"}.get(sort, "")
            sort = "gauge" if sort == "info" else sort
        lines += [f"# HELP {name} {_escaped(family.words, quotes=open_metrics)}", f"# TYPE {name} {sort}"]
        lines += [f"{family.name}{one.suffix}{_labels(one.labels)} {_number(one.value)}" for one in family.samples]
    return "\n".join([*lines, "# EOF", ""] if open_metrics else [*lines, ""]).encode()


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels.items()) + "}"


def _escaped(text: str, *, quotes: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    """Return a number as text: one without a fraction is written as a whole one."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
