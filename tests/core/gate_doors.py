"""Tries to load every package of a folder by every door there is, in one process that notes what it imported.

Run by test_trust_gate.py: ``python gate_doors.py FOLDER`` prints one JSON object a line. The doors are found, not
listed: the functions of ``modelpack`` and the commands that a grant can be given to.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner

import modelpack
from modelpack import cli
from modelpack.errors import ModelpackError

# What a command needs beside the package; a command that is new must say it here.
ARGUMENTS = {
    "test": [],
    "serve": ["--port", "0"],
    "predict": ["-i", "rows.jsonl", "-o", "out.jsonl"],
    "stream": [],
    "optimize": ["-o", "optimized"],
}
# Names of modules that were imported, and of globals that a pickle asked for, since the last look.
noted: set[str] = set()


def note(event: str, args: tuple[Any, ...]) -> None:
    if event == "import":
        noted.add(str(args[0]))
    elif event == "pickle.find_class":
        noted.add(f"pickle: {args[0]}.{args[1]}")


def functions() -> list[str]:
    """Return the names of what ``modelpack`` offers that takes a grant."""
    offered = ((name, getattr(modelpack, name)) for name in modelpack.__all__)
    found = []
    for name, value in offered:
        members = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else [("", value)]
        for member, one in members:
            if (
                inspect.isfunction(one)
                and not member.startswith("_")
                and "allow_code" in inspect.signature(one).parameters
            ):
                found.append(f"{name}.{member}".rstrip("."))
    return found


def commands() -> dict[str, list[str]]:
    """Return the commands that a grant can be given to, and their options."""
    context = cli.main.make_context("modelpack", [], resilient_parsing=True)
    found = {}
    for name in cli.main.list_commands(context):  # type: ignore[attr-defined]
        command = cli.main.get_command(context, name)  # type: ignore[attr-defined]
        options = [option for param in command.params for option in param.opts]
        found |= {name: options} if "--allow-code" in options else {}
    return found


def doors(package: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield each door's name and what tries it and returns the error's code, to be called before the next."""
    flavor = json.loads((package / "modelpack.json").read_text())["flavors"][0]["name"]
    opened = modelpack.open(package)
    yield "load", lambda: code_of(lambda: modelpack.load(package))
    yield "load of an opened package", lambda: code_of(lambda: modelpack.load(opened))
    yield (
        "load as it says, ignoring all else",
        lambda: code_of(lambda: modelpack.load(package, flavor=flavor, environment_policy="ignore")),
    )
    for name, options in commands().items():
        more = [*ARGUMENTS[name], *(["--flavor", flavor] if "--flavor" in options else [])]
        yield name, lambda name=name, more=more: run([name, str(package), *more])  # type: ignore[misc]


def code_of(load: Callable[[], Any]) -> str:
    try:
        load()
    except ModelpackError as exc:
        return exc.code
    return "loaded"


def run(arguments: list[str]) -> str:
    done = CliRunner().invoke(cli.main, arguments)
    codes = re.findall(r"\[([a-z-]+)\]", done.output)
    return codes[-1] if codes else f"exit {done.exit_code}: {done.output} {done.exception!r}"


def main(folder: Path) -> None:
    os.chdir(folder)
    for name in commands():  # what a command imports by itself is no matter of the package
        run([name, "absent", *ARGUMENTS[name]])
    sys.addaudithook(note)
    for package in sorted(path for path in folder.iterdir() if path.is_dir()):
        for door, enter in doors(package):
            noted.clear()
            code = enter()
            exploded = (folder / "exploded").exists()
            print(json.dumps([package.name, door, code, sorted(noted), exploded]))


if __name__ == "__main__":
    if sys.argv[1] == "doors":
        print(json.dumps({"functions": functions(), "commands": list(commands()), "known": sorted(ARGUMENTS)}))
    else:
        main(Path(sys.argv[1]))
