"""``modelpack optimize``: a package gets a checked ONNX twin."""

from __future__ import annotations

import click

from modelpack.cli.report import guard, show_json

__all__ = ["command"]


@click.command("optimize")
@click.argument("package", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Where the new package is written.")
@click.option("--in-place", is_flag=True, help="Replace PACKAGE by it, in one step.")
@click.option("--allow-code", metavar="DIGEST", help="Allow the package with exactly this digest to run its code.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(package: str, output: str | None, in_place: bool, allow_code: str | None, as_json: bool) -> None:
    """Add an ONNX form of its model to PACKAGE, which `serve` then uses.

    The twin is held to the model's answers on the package's examples and on rows made from them; one that differs is
    refused. The result is another package with another digest; its provenance names this one's.

    \b
    Example:
      modelpack optimize churn -o churn-fast
      modelpack serve churn-fast
    """
    with guard(as_json=as_json):
        from modelpack.errors import UsageError
        from modelpack.optimizing import optimize

        if (output is None) != in_place:
            raise UsageError("give either --output or --in-place", code="output-missing", path="output")
        made = optimize(package, output, allow_code=allow_code)
        entry = made.manifest.flavors[-1]
        checked = entry.checked
        assert checked is not None
        if as_json:
            twin = {"flavor": entry.name, "checked": checked.model_dump(mode="json")}
            show_json({"ok": True, "path": str(made.path), "digest": made.digest, "twin": twin})
        else:
            click.echo(f"optimized {made.manifest.name} {made.manifest.version} {made.digest}")
            click.echo(
                f"  flavor {entry.name} gives the same answers on {checked.rows} rows; floats differ by at most "
                f"{checked.largest_difference:.2g} of the tolerance"
            )
