"""Where a command that scores rows runs: here, or in the environment that the package's lock describes."""

from __future__ import annotations

import sys

import click

__all__ = ["enter_environment", "env_option"]

env_option = click.option(
    "--env",
    "env",
    default="here",
    show_default=True,
    type=click.Choice(["here", "isolated"]),
    help="isolated: run in the environment of the package's lock, which is built if it is not there.",
)


def enter_environment(env: str, package: str, allow_code: str | None) -> None:
    """Become the same command in the environment of the package's lock, if that is asked for and not so already.

    Raises:
        EnvironmentMismatch, TrustError, UsageError: there is no lock, it may not be used, or it cannot be built.
    """
    if env != "isolated":
        return
    from modelpack.environments import quick

    if quick.inside():
        return
    quick.start(package, sys.argv[1:])
    from modelpack.environments import cache, layer
    from modelpack.package import Package

    opened = Package.peek(package)
    built = cache.prepared(opened, allow_code=allow_code)
    layer.enter(built, opened.digest, sys.argv[1:])
    click.echo(f"modelpack: building the environment, {len(built.pins)} distributions", err=True)
    cache.create(opened, allow_code=allow_code)
    layer.enter(built, opened.digest, sys.argv[1:])
