"""Writes docs/cli.md from the commands' own help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE = ROOT / "docs" / "cli.md"

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


if __name__ == "__main__":
    CLI_PAGE.write_text(cli_page(), encoding="utf-8")
    print(f"wrote {CLI_PAGE.relative_to(ROOT)}")
