"""Where a command that scores rows runs: here, or in the environment that the package's lock describes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

__all__ = ["enter_environment", "env_option"]

_where = click.option(
    "--env",
    "env",
    default="here",
    show_default=True,
    type=click.Choice(["here", "isolated"]),
    help="isolated: run in the environment of the package's lock, which is built if it is not there.",
)


def _set(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    # Workers, and what this command becomes in another environment, inherit the variable.
    if value is not None:
        os.environ["MODELPACK_ENVIRONMENT_POLICY"] = value
    return value


_policy = click.option(
    "--env-policy",
    type=click.Choice(["strict", "warn", "ignore"]),
    expose_value=False,
    callback=_set,
    help="A critical package of another version: refuse, warn, or ignore it.  [default: strict]",
)


def env_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say in which environment the model runs, and what is done if that is not its own."""
    return _where(_policy(function))


def enter_environment(env: str, package: str, allow_code: str | None) -> None:
    """Become the same command in the environment of the package's lock, if that is asked for and not so already.

    Raises:
        EnvironmentMismatch, TrustError, UsageError: there is no lock, it may not be used, it cannot be built, or
            somebody removes it at this moment (``environment-gone``).
    """
    if env != "isolated":
        return
    from modelpack.environments import quick

    if quick.inside(quick.digest(package) or ""):
        return
    quick.start(package, sys.argv[1:])
    from modelpack.environments import cache, layer
    from modelpack.errors import EnvironmentMismatch
    from modelpack.package import Package

    opened = Package.peek(package)
    if quick.inside(opened.digest):
        return
    built = cache.prepared(opened, allow_code=allow_code)
    if quick.running_in(built.path):
        return
    layer.check(built)
    layer.enter(built, opened.digest, sys.argv[1:])
    click.echo(f"modelpack: building the environment, {len(built.pins)} distributions", err=True)
    cache.create(opened, allow_code=allow_code)
    layer.enter(built, opened.digest, sys.argv[1:])
    raise EnvironmentMismatch(
        "the environment was built, and is not there any more",
        code="environment-gone",
        path="environment.locks",
        hint="Do it again, and let nobody prune meanwhile.",
    )
