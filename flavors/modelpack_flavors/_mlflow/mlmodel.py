"""The file ``MLmodel``: YAML, read with every scalar as the text it is.

YAML's own idea of types makes 1.10 a number and ``no`` a boolean; nothing here needs that. Aliases, which a few bytes
can blow up, and repeated keys, of which parsers keep either, are refused.
"""

from __future__ import annotations

from typing import Any

from modelpack.errors import PackageError
from modelpack.optional import require

__all__ = ["MAX_BYTES", "parse"]

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32


def parse(raw: bytes, path: str = "MLmodel") -> dict[str, Any]:
    """Return the mapping in the file; every scalar is text, null is None.

    Raises:
        PackageError: it is no YAML mapping, or one with aliases, repeated keys or deep nesting (``mlmodel-invalid``).
    """
    yaml = require("yaml", what="Reading an MLflow model", extra="mlflow")
    if len(raw) > MAX_BYTES:
        raise _invalid(f"is larger than {MAX_BYTES} bytes", path)
    try:
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        raise _invalid("is not UTF-8", path) from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        raise _invalid("is not YAML" + (f" at line {mark.line + 1}" if mark else ""), path) from None
    except RecursionError:
        raise _invalid(f"is nested deeper than {MAX_DEPTH}", path) from None
    value = _plain(node, yaml, path, set(), 0)
    if not isinstance(value, dict):
        raise _invalid("is not a mapping", path)
    return value


def _plain(node: Any, yaml: Any, path: str, seen: set[int], depth: int) -> Any:
    if node is None:
        return None
    if id(node) in seen:
        raise _invalid("uses an alias", path)
    seen.add(id(node))
    if depth > MAX_DEPTH:
        raise _invalid(f"is nested deeper than {MAX_DEPTH}", path)
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, yaml, path, seen, depth + 1) for item in node.value]
    out: dict[str, Any] = {}
    for key, item in node.value:
        name = _plain(key, yaml, path, seen, depth + 1)
        if not isinstance(name, str) or name in out:
            raise _invalid("has a key that is no text, or occurs twice", path)
        out[name] = _plain(item, yaml, path, seen, depth + 1)
    return out


def _invalid(what: str, path: str) -> PackageError:
    return PackageError(f"the file {what}", code="mlmodel-invalid", path=path)
