"""``modelpack test``: load a package and compare its answers to the recorded ones."""

from __future__ import annotations

import click

from modelpack.cli.place import enter_environment, env_option
from modelpack.cli.report import guard, printable, show_json

__all__ = ["command"]


@click.command("test")
@click.argument("package", type=click.Path())
@click.option("--allow-code", metavar="DIGEST", help="Allow the package with exactly this digest to run its code.")
@click.option("--flavor", help="Load this flavor instead of the first that can be.")
@env_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(package: str, allow_code: str | None, flavor: str | None, env: str, as_json: bool) -> None:
    """Load PACKAGE, score its examples, and compare the answers with the recorded ones.

    Exits with 1 if an answer differs by more than the recorded tolerance, or if there is no example.

    \b
    Example:
      modelpack test churn
      modelpack test churn-locked --env isolated
    """
    with guard(as_json=as_json):
        enter_environment(env, package, allow_code)
        from modelpack import examples
        from modelpack.loading import load

        model = load(package, allow_code=allow_code, flavor=flavor)
        outcomes = [examples.check(model, example) for example in model.manifest.examples]
        if as_json:
            show_json(
                {
                    "ok": bool(outcomes) and all(outcome.passed for outcome in outcomes),
                    "flavor": model.candidate.name,
                    "examples": [
                        {"name": o.name, "rows": o.rows, "passed": o.passed, "differences": list(o.differences)}
                        for o in outcomes
                    ],
                }
            )
        else:
            for outcome in outcomes:
                verdict = "ok" if outcome.passed else f"{len(outcome.differences)} differences"
                click.echo(f"{outcome.name}: {outcome.rows} rows, {verdict} (flavor {model.candidate.name})")
                for difference in outcome.differences[:20]:
                    click.echo(f"  {printable(difference)}")
            if not outcomes:
                click.echo("modelpack: the package has no examples, so there is nothing to compare", err=True)
        if not outcomes or not all(outcome.passed for outcome in outcomes):
            raise SystemExit(1)
