"""The flavor ``lookup``: saves and loads :class:`lookup_table.Lookup`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lookup_table import Lookup
from lookup_table.payload import Content, parse
from modelpack.errors import UsageError
from modelpack.flavor import Form, LoadContext, Predictor, SaveContext, Saved
from modelpack.signature import Column, Signature, Table

ENTRY = "table.json"


@dataclass(frozen=True)
class LookupPredictor:
    """A table behind the call that modelpack makes: arrays by column in, arrays by column out."""

    model: Lookup
    form: Form = "columns"

    def predict(self, data: Any, params: Mapping[str, Any]) -> Any:
        return {"answer": self.model.predict(data[self.model.column])}


@dataclass(frozen=True)
class LookupFlavor:
    """What the entry point names: an object with the attributes and methods of modelpack.flavor.Flavor."""

    name: str = "lookup"
    version: str = "1"
    formats: Sequence[str] = ("lookup-json",)
    extra: str = "lookup"

    def matches(self, model: object) -> int:
        """Return 50 for what this flavor is made for, 0 for everything else."""
        return 50 if isinstance(model, Lookup) else 0

    def save(self, model: Any, context: SaveContext) -> Saved:
        """Write the table into the directory that is given, and say what modelpack should record."""
        if context.options:
            raise UsageError("the lookup flavor has no options", code="option-unknown", path="options")
        answers = {text: float(number) for text, number in model.answers.items()}
        content = Content(column=model.column, answers=answers, otherwise=float(model.otherwise))
        text = json.dumps(asdict(content), sort_keys=True, ensure_ascii=False)
        (context.directory / ENTRY).write_text(text, encoding="utf-8")
        return Saved(
            format="lookup-json",
            entry=ENTRY,
            predictor=LookupPredictor(model),
            signature=Signature(
                inputs=Table(columns=(Column(name=model.column, type="utf8"),)),
                outputs=Table(columns=(Column(name="answer", type="float64"),)),
            ),
        )

    def load(self, context: LoadContext) -> Predictor:
        """Build the model from verified bytes, and from nothing but what the audit saw."""
        entry = context.entry or ""
        content = parse(context.files.read(entry), entry)
        return LookupPredictor(Lookup(content.column, content.answers, content.otherwise))


FLAVOR = LookupFlavor()
