"""The page for people: what the model takes and gives, and a curl command to try; plain HTML, no script."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape

from modelpack.dtypes import describe
from modelpack.signature import IO, Param, Signature, Table, Tensors
from modelpack_server.facts import Facts

__all__ = ["render"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } td, th { text-align: left; padding: .2rem 1rem .2rem 0 }
th { border-bottom: 1px solid #999 } td { border-bottom: 1px solid #eee }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto } .quiet { color: #666; word-break: break-all }
"""


def render(facts: Facts, signature: Signature, base: str, *, metrics: bool = True) -> str:
    """Return the page; ``base`` is the URL the server was reached at."""
    more = ["metadata", "openapi.json", *(["metrics"] if metrics else [])]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{escape(facts.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(facts.name)} {escape(facts.version)}</h1>",
        f"<p>{escape(facts.description)}</p>" if facts.description else "",
        f'<p class="quiet">{escape(facts.digest)} · flavor {escape(facts.flavor)} · trust {escape(facts.trust)}</p>',
        "<h2>Inputs</h2>",
        _io(signature.inputs),
        "<h2>Outputs</h2>",
        _io(signature.outputs),
        _params(signature.params) if signature.params else "",
        "<h2>Try it</h2>",
        f"<pre>{escape(_curl(facts, base))}</pre>",
        "<p>More: " + ", ".join(f'<a href="{name}">{name}</a>' for name in more) + ".</p>",
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _io(io: IO | None) -> str:
    match io:
        case Table():
            rows = ((c.name, describe(c.type), _notes(c.nullable, c.optional), c.description or "") for c in io.columns)
            return _table(("column", "type", "", ""), rows)
        case Tensors():
            tensors = (
                (t.name, f"{t.dtype}{_shape(t.shape)}", _notes(t.nullable, t.optional), t.description or "")
                for t in io.tensors
            )
            return _table(("tensor", "type", "", ""), tensors)
        case None:
            return "<p>Not described; anything is passed on.</p>"
        case _:
            return "<p>Any JSON value.</p>"


def _shape(shape: Iterable[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _notes(nullable: bool, optional: bool) -> str:
    return ", ".join(word for word, holds in (("may be null", nullable), ("may be left out", optional)) if holds)


def _params(params: Iterable[Param]) -> str:
    rows = (
        (p.name, describe(p.type), "" if p.default is None else f"default {json.dumps(p.default)}", p.description or "")
        for p in params
    )
    return "<h2>Params</h2>\n" + _table(("param", "type", "", ""), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "\n".join(["<table>", row(head, "th"), *(row(cells, "td") for cells in rows), "</table>"])


def _curl(facts: Facts, base: str) -> str:
    body = json.dumps(facts.example) if facts.example else '{"dataframe_records": [{"…": "…"}]}'
    quoted = body.replace("'", "'\\''")
    return f"curl {base}invocations -H 'Content-Type: application/json' -d '{quoted}'"
