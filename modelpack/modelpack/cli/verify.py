"""``modelpack verify``: closed world, sizes and digests; every fault is listed."""

from __future__ import annotations

import click

from modelpack.cli.report import guard, show_json

__all__ = ["command"]


@click.command("verify")
@click.argument("package", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(package: str, as_json: bool) -> None:
    """Check that PACKAGE is whole and unchanged: exactly the files its manifest lists.

    Exits with 1 and a list of all faults if it is not. Nothing of the package is imported or run.

    \b
    Example:
      modelpack verify churn
    """
    with guard(as_json=as_json):
        from modelpack.package import Package

        opened = Package.open(package)
        count = len(opened.manifest.files)
        if as_json:
            show_json({"ok": True, "digest": opened.digest, "files": count})
        else:
            click.echo(f"ok: {count} files, {opened.digest}")
