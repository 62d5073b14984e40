"""`--where`: which rows of the inputs are scored, said in a small language of its own (docs/batch.md)."""

from __future__ import annotations

from modelpack_server.batch.where.bounds import Bounds, may_hold
from modelpack_server.batch.where.grammar import parse
from modelpack_server.batch.where.terms import Term, columns_of

__all__ = ["Bounds", "Term", "columns_of", "may_hold", "parse"]
