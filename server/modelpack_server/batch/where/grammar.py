"""The language of `--where`, read into terms; nothing of it is ever evaluated as Python.

::

    any     = all { "or" all }
    all     = single { "and" single }
    single  = "not" single | "(" any ")" | test
    test    = column ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
            | column [ "not" ] "in" "(" value { "," value } ")"
            | column "is" [ "not" ] "null"
    column  = a name, or any text in double quotes
    value   = a number, 'text', true or false
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Literal, NoReturn, cast

from modelpack.errors import UsageError
from modelpack_server.batch.where.terms import Comparison, Joined, Literals, Operator, Term, negated

__all__ = ["parse"]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\w.]))
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")+")
  | (?P<word>[^\W\d]\w*)
  | (?P<mark><=|>=|!=|<>|==|[=<>(),])
    )""",
    re.VERBOSE,
)
_WORDS = frozenset({"and", "or", "not", "in", "is", "null", "true", "false"})
_SAME = {"==": "=", "<>": "!="}
_HINT = "Write it like: month >= 6 and carrier in ('AA', 'UA') and tailnum is not null"
_MAX_LENGTH = 10_000
_MAX_DEPTH = 50


def parse(text: str) -> Term:
    """Return what an expression says.

    Raises:
        UsageError: it is not of this language (``where-syntax``), with the place.
    """
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"the expression has more than {_MAX_LENGTH} characters", code="where-syntax", path="--where")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0
        self._depth = 0
        self._advance()

    def _advance(self) -> None:
        """Look at the next token: its kind (None at the end), its text and where it begins."""
        rest = self._text[self._end :]
        if not rest.strip():
            self._kind, self._word, self._start = None, "", len(self._text)
            return
        found = _TOKEN.match(self._text, self._end)
        if found is None or found.lastgroup is None:
            self._start = self._end + len(rest) - len(rest.lstrip())
            self._fail("cannot be read")
        self._kind = found.lastgroup
        self._word, self._start, self._end = found[self._kind], found.start(self._kind), found.end()
        lowered = self._word.lower()
        if self._kind == "word" and lowered in _WORDS:
            self._kind, self._word = "mark", lowered

    def _fail(self, what: str) -> NoReturn:
        place = f"at character {self._start + 1}"
        near = self._text[self._start : self._start + 20]
        message = f"the expression {what} {place}: {near!r}" if near else f"the expression ends too early: it {what}"
        raise UsageError(message, code="where-syntax", path="--where", hint=_HINT)

    def _takes(self, mark: str) -> bool:
        if self._kind != "mark" or self._word != mark:
            return False
        self._advance()
        return True

    def _needs(self, mark: str) -> None:
        if not self._takes(mark):
            self._fail(f"needs {mark!r}")

    def whole(self) -> Term:
        term = self._joined("or", lambda: self._joined("and", self._single))
        if self._kind is not None:
            self._fail("needs 'and' or 'or'")
        return term

    def _joined(self, how: Literal["and", "or"], part: Callable[[], Term]) -> Term:
        parts = [part()]
        while self._takes(how):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Joined(how=how, parts=parts)

    def _single(self) -> Term:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail("is nested too deeply")
        if self._takes("not"):
            term = negated(self._single())
        elif self._takes("("):
            term = self._joined("or", lambda: self._joined("and", self._single))
            self._needs(")")
        else:
            term = self._test()
        self._depth -= 1
        return term

    def _test(self) -> Comparison:
        if self._kind not in ("word", "quoted"):
            self._fail("needs a column")
        column = self._word if self._kind == "word" else self._word[1:-1].replace('""', '"')
        self._advance()
        if self._takes("is"):
            opposite = self._takes("not")
            self._needs("null")
            return Comparison(column=column, operator="null", negated=opposite)
        if self._takes("not"):
            self._needs("in")
            return Comparison(column=column, operator="in", values=self._values(), negated=True)
        if self._takes("in"):
            return Comparison(column=column, operator="in", values=self._values())
        operator = _SAME.get(self._word, self._word)
        if self._kind != "mark" or operator not in ("=", "!=", "<", "<=", ">", ">="):
            self._fail("needs a comparison")
        self._advance()
        values = (self._value(),)
        if operator == "!=":
            return Comparison(column=column, operator="=", values=values, negated=True)
        return Comparison(column=column, operator=cast("Operator", operator), values=values)

    def _values(self) -> tuple[Literals, ...]:
        self._needs("(")
        values = [self._value()]
        while self._takes(","):
            values.append(self._value())
        self._needs(")")
        return tuple(values)

    def _value(self) -> Literals:
        value: Literals
        if self._kind == "number":
            value = int(self._word) if self._word.lstrip("+-").isdigit() else Decimal(self._word)
        elif self._kind == "text":
            value = self._word[1:-1].replace("''", "'")
        elif self._kind == "mark" and self._word in ("true", "false"):
            value = self._word == "true"
        else:
            self._fail("needs a number, 'text', true or false")
        self._advance()
        return value
