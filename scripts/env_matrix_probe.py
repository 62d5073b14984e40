"""Loads a package and scores its example, and tells what that imported; run by the environment that is looked at.

``python env_matrix_probe.py modelpack|mlflow PLACE [DISTRIBUTION]`` prints one JSON object. With a distribution nothing
of it can be imported: what still answers the same does not need it.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.metadata
import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS = ("modelpack", "modelpack_server")


def main(tool: str, place: str, without: str = "") -> None:
    """Print whether it answered, what it answered, what was imported, and what of it is only the runtime's."""
    provided = importlib.metadata.packages_distributions()
    if without:
        _block({top for top, names in provided.items() if [_plain(name) for name in names] == [without]})
    borrowed = _watch(os.environ.get("MODELPACK_RUNTIME_LAYER", ""))
    answer, error = None, ""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = {"modelpack": _modelpack, "mlflow": _mlflow}[tool](place)
    except BaseException as exc:
        error = f"{type(exc).__name__}: {exc}"
    tops = {name.partition(".")[0] for name in sys.modules}
    imported = {_plain(name) for top in tops for name in provided.get(top, ())}
    lent = {_plain(name) for top in borrowed for name in provided.get(top, ())}
    print(json.dumps({"answer": answer, "error": error, "imported": sorted(imported), "borrowed": sorted(lent)}))


def _modelpack(place: str) -> Any:
    import modelpack
    from modelpack import examples

    model = modelpack.load(place)
    (outcome,) = [examples.check(model, example) for example in model.manifest.examples]
    return {"rows": outcome.rows, "differences": list(outcome.differences)}


def _mlflow(place: str) -> Any:
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import predictions_to_json

    model = mlflow.pyfunc.load_model(place)
    predictions_to_json(model.predict(model.input_example), out := io.StringIO())
    return json.loads(out.getvalue())


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _block(tops: set[str]) -> None:
    class Nothing:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] in tops:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Nothing())


def _watch(layer: str) -> set[str]:
    """Return a set that fills with the modules of the runtime's layer that others than the runtime import."""
    found: set[str] = set()
    real: Callable[..., Any] = builtins.__import__

    def noting(name: str, scope: Any = None, *rest: Any, **named: Any) -> Any:
        module = real(name, scope, *rest, **named)
        importer = str((scope or {}).get("__file__") or "")
        level = rest[2] if len(rest) > 2 else named.get("level", 0)
        if layer and not level and not _runtime(importer, layer):
            top = name.partition(".")[0]
            if str(getattr(sys.modules.get(top), "__file__", None) or "").startswith(layer):
                found.add(top)
        return module

    builtins.__import__ = noting
    return found


def _runtime(importer: str, layer: str) -> bool:
    """Say whether what a file imports tells nothing: the runtime's, or another distribution's that was installed.

    What those need is installed with them, and what they can do without is no loss. Flavors stand for what models need.
    """
    if not importer or importer == __file__ or importer.startswith(sys.prefix):
        return True
    parts = Path(importer).parts
    if "modelpack_flavors" in parts:
        return False
    return importer.startswith(layer) or any(name in parts for name in OURS)


if __name__ == "__main__":
    main(*sys.argv[1:])
