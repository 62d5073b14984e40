"""How long a text may be: what does not fit is refused, by row, and never cut unasked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelpack.errors import InputError

__all__ = ["check", "limit", "place"]

# These models count positions from behind the filling token.
_OFFSET = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
_NO_LIMIT = 10**9


def limit(tokenizer: Any, model: Any) -> int | None:
    """Return how many tokens the model takes, None for as many as there are."""
    config = model.config
    found = [tokenizer.model_max_length] if tokenizer.model_max_length < _NO_LIMIT else []
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions:
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET else 0
        found.append(positions - offset)
    return min(found, default=None)


def check(tokenizer: Any, model: Any, texts: Sequence[str], room: int, column: str | None) -> None:
    """Check that every text fits, with ``room`` for that many tokens more.

    Raises:
        InputError: one is too long (``text-too-long``).
    """
    most = limit(tokenizer, model)
    if most is None or not texts:
        return
    for row, ids in enumerate(tokenizer(list(texts), verbose=False)["input_ids"]):
        if len(ids) + room > most:
            more = f" and {room} more are asked for" if room else ""
            raise InputError(
                f"the text has {len(ids)} tokens{more}; the model takes {most}",
                code="text-too-long",
                path=place(column, row),
                hint="Shorten it, or save the model with options={'truncation': True}, which cuts it.",
            )


def place(column: str | None, row: int) -> str:
    """Return how a row is named in an error."""
    return f"{column or 'text'}[{row}]"
