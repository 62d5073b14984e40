"""The categories a model was trained with, by feature, in its order.

XGBoost keeps them from version 3.1 on. Texts beyond ASCII cannot always be read back from a model; those are taken from
the example and kept in the config, after a comparison with what the model has of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from modelpack.audits.xgboost_json import Facts
from modelpack.errors import SaveError
from modelpack_flavors._boosters.options import invalid

__all__ = ["as_json", "from_json", "of_model"]

Categories = Mapping[int, Sequence[Any]]


def of_model(facts: Facts, example: Any) -> Categories:
    """Return the categories; none for a feature whose texts only an example could tell, when it does not.

    Raises:
        SaveError: the example has other categories than the model (``model-unsupported``).
    """
    found = dict(_readable(facts))
    for place in facts.categories.keys() - found.keys():
        texts = _of_example(facts, place, example)
        if texts is not None and not _are(texts, facts.categories[place]):
            raise SaveError(
                f"the example's categories of {facts.names[place]!r} are not those the model was trained with",
                code="model-unsupported",
                hint="Give rows of the table that the model was trained on.",
            )
        found[place] = texts or ()
    return found


def as_json(facts: Facts, known: Categories) -> dict[str, list[Any]]:
    """Return what a config must hold: the categories that cannot be read from the model."""
    readable = _readable(facts)
    return {str(place): list(values) for place, values in known.items() if place not in readable and values}


def from_json(facts: Facts, stored: Any, entry: str) -> Categories:
    """Return the categories of a model and its config.

    Raises:
        PackageError: the config's are not the model's (``payload-invalid``).
    """
    found = dict(_readable(facts))
    if not isinstance(stored, Mapping):
        invalid("the config has no categories", entry)
    for place in facts.categories.keys() - found.keys():
        texts = stored.get(str(place), ())
        if texts and not _are(texts, facts.categories[place]):
            invalid("the config has other categories than the model", entry)
        found[place] = texts
    return found


def _readable(facts: Facts) -> Categories:
    """Return the numbers, and the texts that are ASCII."""
    return {
        place: tuple(value.decode("ascii") if isinstance(value, bytes) else value for value in values)
        for place, values in facts.categories.items()
        if all(not isinstance(value, bytes) or value.isascii() for value in values)
    }


def _of_example(facts: Facts, place: int, example: Any) -> list[Any] | None:
    if not facts.names or facts.names[place] not in list(getattr(example, "columns", ())):
        return None
    kind = getattr(getattr(example[facts.names[place]], "dtype", None), "categories", None)
    return None if kind is None else kind.tolist()


def _are(texts: Any, kept: Sequence[bytes]) -> bool:
    """Say whether a model that was trained with these texts would keep these bytes."""
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return False
    raw = "".join(texts).encode("utf-8", "surrogatepass")
    ends = list(itertools.accumulate((len(text) for text in texts), initial=0))
    cut = [raw[a:b] for a, b in itertools.pairwise(ends)]
    return list(kept) in (cut, [text.encode("utf-8", "surrogatepass") for text in texts])
