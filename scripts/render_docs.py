"""Writes what the docs take from the code: docs/cli.md, and the tables of modules in docs/architecture.md."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE = ROOT / "docs" / "cli.md"
ARCHITECTURE_PAGE = ROOT / "docs" / "architecture.md"
TABLE = re.compile(r"<!-- modules of (\S+) -->\n.*?<!-- end -->", re.DOTALL)

INTRODUCTION = """\
# The command line

Written by `scripts/docs` from the commands' own help; the suite fails when it is out of date.

Exit codes: 0 done; 1 the thing asked for failed (faults found, rows refused); 2 wrong usage.
Errors are one or two lines on standard error; with `--json` the facts are JSON on standard output.
"""


def commands() -> list[tuple[str, ...]]:
    """Return the words of every command, subcommands after their group."""
    from modelpack import cli

    found: list[tuple[str, ...]] = []

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        if words:
            found.append(words)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                if (child := command.get_command(context, name)) is not None:
                    walk(child, (*words, name))

    walk(cli.main, ())
    return found


def help_of(words: tuple[str, ...]) -> str:
    """Return what ``modelpack WORDS --help`` prints on a terminal of 80 columns."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("modelpack")), *words, "--help"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    return done.stdout.rstrip()


def cli_page() -> str:
    """Return the text of docs/cli.md."""
    sections = [INTRODUCTION]
    for words in [(), *commands()]:
        name = " ".join(("modelpack", *words))
        sections.append(f"## `{name}`\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(sections)


def as_markdown(docstring: str) -> str:
    """Return the first paragraph of a docstring as one cell of a table."""
    text = " ".join(docstring.partition("\n\n")[0].split())
    text = re.sub(r" \((spec|docs)/[^)]*\)", "", text)
    return re.sub(r":\w+:(?=`)", "", text).replace("``", "`").replace("|", "/")


def modules(folder: Path) -> str:
    """Return a table of the Python files below a folder, each with the first sentence of its docstring."""
    lines = ["| module | what it is |", "| --- | --- |"]
    for path in sorted(folder.rglob("*.py"), key=lambda path: (len(path.relative_to(folder).parts), path)):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summary = " ".join(docstring.partition("\n\n")[0].split()).removesuffix("::").rstrip()
        if summary:
            lines.append(
                f"| `{path.relative_to(folder).as_posix()}` | {summary.replace('``', '`').replace('|', '/')} |"
            )
    return "\n".join(lines) + "\n"


def architecture_page() -> str:
    """Return docs/architecture.md with its tables of modules as they should be."""
    return TABLE.sub(
        lambda match: f"<!-- modules of {match[1]} -->\n{modules(ROOT / match[1])}<!-- end -->",
        ARCHITECTURE_PAGE.read_text(encoding="utf-8"),
    )


if __name__ == "__main__":
    for page, text in ((CLI_PAGE, cli_page()), (ARCHITECTURE_PAGE, architecture_page())):
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}")
