"""Fails when a module is longer than 400 lines, or the body of a function longer than 60."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("modelpack/modelpack", "flavors/modelpack_flavors", "server/modelpack_server")
MODULE_LINES = 400
FUNCTION_LINES = 60  # 40 is the aim; past 60 there is no excuse


def too_long(path: Path) -> list[str]:
    """Return one line of text for each thing in the file that is over its limit."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    found = []
    if (lines := text.count("\n")) > MODULE_LINES:
        found.append(f"{name}: {lines} lines, at most {MODULE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1 if ast.get_docstring(node) and len(node.body) > 1 else 0]
            lines = (node.end_lineno or first.lineno) - first.lineno + 1
            if lines > FUNCTION_LINES:
                found.append(f"{name}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}")
    return found


def main() -> int:
    """Print what is too long; return 1 if anything is."""
    files = [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [line for path in files for line in too_long(path)]
    print("\n".join(found) or f"{len(files)} modules, none too long")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
