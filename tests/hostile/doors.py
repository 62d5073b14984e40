"""Brings packages to every door of modelpack, in one process, and prints what each door says, one JSON object a line.

Run by test_every_door.py: ``python doors.py LIST``; LIST is a JSON file of paths. The working directory is the place
where a package would leave its mark. The memory of the process is bounded, and so is the time of each package.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import modelpack
from modelpack import cli
from modelpack.errors import ModelpackError

MEMORY = 4 * 2**30
SECONDS = 60
Answer = dict[str, Any]


def called(function: Callable[[], object]) -> Answer:
    """Return what a function of the library raises."""
    try:
        function()
    except ModelpackError as exc:
        return {"code": exc.code, "path": exc.path}
    except BaseException as exc:
        return {"trace": f"{type(exc).__name__}: {exc}"}
    return {}


def commanded(*words: str) -> Answer:
    """Return how a command ends, and what it says of its error."""
    result = CliRunner().invoke(cli.main, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return {"trace": f"{type(result.exception).__name__}: {result.exception}"}
    answer: Answer = {"exit": result.exit_code}
    if "Traceback" in result.output:
        answer["trace"] = result.output
    try:
        said = json.loads(result.stdout)
    except ValueError:
        return answer
    error = said.get("error") or {}
    candidates = (said.get("load") or {}).get("candidates", ())
    return answer | {
        "code": error.get("code"),
        "path": error.get("path") or "",
        "classes": [candidate["class"] for candidate in candidates],
        "faults": len(said.get("faults") or ()),
    }


def tried(package: str) -> dict[str, Answer]:
    """Return what every door says of one package."""
    return {
        "open": called(lambda: modelpack.open(package)),
        "inspect": commanded("inspect", package, "--json"),
        "verify": commanded("verify", package, "--json"),
        "load": called(lambda: modelpack.load(package)),
        "serve": commanded("serve", package, "--port", "0", "--json-logs"),
        "predict": commanded("predict", package, "-i", "rows.jsonl", "-o", "out.jsonl", "--json"),
        "test": commanded("test", package, "--json"),
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    Path("rows.jsonl").write_text('{"x": 1}\n', "utf-8")
    for package in json.loads(Path(sys.argv[1]).read_bytes()):
        # Nobody catches this signal: a package that takes longer ends the process, which the test sees.
        signal.alarm(SECONDS)
        print(json.dumps({"package": package, "answers": tried(package)}), flush=True)
        signal.alarm(0)
        left = sorted(path.name for path in Path().iterdir())
        if left != ["rows.jsonl"]:
            raise SystemExit(f"{package} left {left}")


if __name__ == "__main__":
    main()
