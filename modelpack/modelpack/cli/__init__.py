"""The command line: one file for each command, imported only when that command is used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]


class _Commands(click.Group):
    """A group whose commands are the files of this folder; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _ORDER:
            return None
        command: click.Command = importlib.import_module(f"modelpack.cli.{_module(cmd_name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_ORDER.items()))


# Command -> its line in `modelpack --help`; the order a newcomer meets them in.
_ORDER = {
    "inspect": "Say what a package is, what it needs, and what would run on load.",
    "verify": "Check every file of a package against its manifest.",
    "test": "Score the package's examples and compare with the recorded answers.",
    "optimize": "Add a checked ONNX form, which serve then uses.",
    "serve": "Answer HTTP requests in real time.",
    "predict": "Score files in batch.",
    "stream": "Score a table as it grows, or lines as they come.",
    "trust": "Allow packages to run their code, by digest.",
    "import": "Make a package of an MLflow directory.",
    "env": "Show, compare, lock and build the environment a package needs.",
}
# Commands whose file would have the name of a standard module.
_FILES = {"import": "importing", "inspect": "inspection", "test": "selftest"}


def _module(command: str) -> str:
    return _FILES.get(command, command)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from modelpack import __version__

        click.echo(f"modelpack {__version__}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def main() -> None:
    """Package trained models, and score any package.

    \b
    Example:
      modelpack inspect churn
      modelpack serve churn --port 8080
      modelpack predict churn -i rows.parquet -o scores.parquet
    """


def commands_folder() -> Path:
    """Return the folder the commands are in, for tests that compare it with the list."""
    return Path(__file__).parent


def runtime(name: str) -> Any:
    """Import and return a module of the runtime by name, since the core does not import it."""
    return importlib.import_module(f"modelpack_server.{name}")
