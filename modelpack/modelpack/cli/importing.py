"""``modelpack import``: a directory of another format becomes a package, its files as they are."""

from __future__ import annotations

import click

from modelpack.cli.report import guard, show_json

__all__ = ["command"]


@click.command("import")
@click.argument("directory", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Where the package is written.")
@click.option("--overwrite", is_flag=True, help="Replace a package that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(directory: str, output: str, overwrite: bool, as_json: bool) -> None:
    """Make a package of DIRECTORY, which another tool wrote (an MLflow model: a directory with MLmodel).

    The files are copied as they are and described by a manifest; nothing of them is imported or run, and nothing
    is allowed: code in it needs a grant, like any stranger's.

    \b
    Example:
      modelpack import mlruns/model -o churn
    """
    with guard(as_json=as_json):
        from modelpack.importing import import_directory

        package = import_directory(directory, output, overwrite=overwrite)
        if as_json:
            show_json({"ok": True, "path": str(package.path), "digest": package.digest})
        else:
            click.echo(f"imported {package.manifest.name} {package.digest}")
