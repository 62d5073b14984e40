"""``modelpack env``: the environment a package needs, and how this one differs."""

from __future__ import annotations

import click

from modelpack.cli.report import guard, printable, show_json

__all__ = ["command"]


@click.group("env")
def command() -> None:
    """Show the environment a package needs, and how this one differs.

    \b
    Example:
      modelpack env diff churn
    """


@command.command("show")
@click.argument("package", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(package: str, as_json: bool) -> None:
    """Print what PACKAGE needs, one requirement a line, as pip takes them.

    \b
    Example:
      modelpack env show churn > requirements.txt
    """
    with guard(as_json=as_json):
        from modelpack.package import Package

        environment = Package.open(package).environment
        if as_json:
            show_json(environment.model_dump(mode="json"))
        else:
            click.echo("\n".join(map(printable, environment.dependencies)))


@command.command("diff")
@click.argument("package", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(package: str, as_json: bool) -> None:
    """Compare this environment with the one PACKAGE was saved in; exits with 1 if the model cannot load here.

    \b
    Example:
      modelpack env diff churn
    """
    with guard(as_json=as_json):
        from modelpack import environment
        from modelpack.package import Package

        found = environment.compare(Package.open(package).environment)
        serious = any(difference.severity == "error" for difference in found)
        if as_json:
            fields = ("name", "wanted", "found", "severity")
            show_json({"ok": not serious, "differences": [{f: getattr(d, f) for f in fields} for d in found]})
        else:
            for difference in found:
                click.echo(f"{difference.severity}: {printable(str(difference))}")
            if not found:
                click.echo("no difference")
        if serious:
            raise SystemExit(1)
