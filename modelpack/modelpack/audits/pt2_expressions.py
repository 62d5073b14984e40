"""Expressions over sizes, as exported programs write them: read as syntax, never evaluated."""

from __future__ import annotations

import ast
import re

__all__ = ["known_expression", "known_guard"]

MAX_LENGTH = 4096
_SYMBOL = re.compile(r"z?[su]\d{1,9}\Z")
_WORDS = """
    Add CeilToInt CleanDiv Eq FloatPow FloatTrueDiv FloorDiv FloorToInt Ge Gt Identity IntTrueDiv Integer LShift Le Lt
    Max Min Mod ModularIndexing Mul Ne Pow PowByNatural PythonMod RShift RoundToInt Symbol ToFloat TruncToInt Where
"""
_CALLS = frozenset(_WORDS.split())
_FLAGS = frozenset({"evaluate", "integer", "nonnegative", "nonpositive", "positive", "negative", "real"})
_PLAIN = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv,
    ast.Div, ast.Mod, ast.Pow, ast.USub, ast.Not, ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def known_expression(text: object) -> bool:
    """Say whether the text is arithmetic over symbols of sizes and integers."""
    tree = _parsed(text)
    return tree is not None and all(_part(node) for node in ast.walk(tree))


def known_guard(text: object) -> bool:
    """Say whether the text is a condition on sizes of the inputs, ``L['x'].size()[0] >= 2``."""
    tree = _parsed(text)
    return tree is not None and all(_guard_part(node) for node in ast.walk(tree))


def _parsed(text: object) -> ast.Expression | None:
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        return None
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _part(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return bool(_SYMBOL.match(name)) or name in _CALLS
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=flags):
            return bool(_SYMBOL.match(name)) and all(flag.arg in _FLAGS for flag in flags)
        case ast.Call(func=ast.Name(id=name), keywords=flags):
            return name in _CALLS - {"Symbol"} and all(flag.arg in _FLAGS for flag in flags)
        case ast.Constant(value=value):
            return type(value) in (int, bool, float) or bool(isinstance(value, str) and _SYMBOL.match(value))
        case ast.keyword(arg=name, value=ast.Constant(value=value)):
            return name in _FLAGS and type(value) is bool
    return isinstance(node, _PLAIN)


def _guard_part(node: ast.AST) -> bool:
    match node:
        case ast.Name(id=name):
            return name == "L"
        case ast.Call(func=ast.Attribute(attr=name), args=[], keywords=[]):
            return name in ("size", "stride", "storage_offset")
        case ast.Attribute(attr=name):
            return name in ("size", "stride", "storage_offset")
        case ast.Constant(value=value):
            return type(value) in (int, str, bool)
    return isinstance(node, (ast.Subscript, *_PLAIN))
