"""``modelpack trust``: the user's own grants, by digest."""

from __future__ import annotations

import click

from modelpack.cli.report import guard, show_json

__all__ = ["command"]


@click.group("trust")
def command() -> None:
    """Allow packages to run their code, by digest; see and withdraw what is allowed.

    \b
    Example:
      modelpack inspect churn          # what would run, and the digest
      modelpack trust add churn --digest sha256:4f0c…
      modelpack trust list
    """


@command.command("add")
@click.argument("package", type=click.Path())
@click.option("--digest", required=True, help="The digest you have checked, whole; it must be the package's.")
def add(package: str, digest: str) -> None:
    """Allow PACKAGE, which must have exactly this digest, to run its code for this user on this machine.

    \b
    Example:
      modelpack trust add churn --digest sha256:4f0c…
    """
    with guard():
        from modelpack import trust
        from modelpack.errors import TrustError
        from modelpack.package import Package

        opened = Package.open(package)
        if trust.parse_digest(digest) != opened.digest:
            raise TrustError(
                "the package has another digest than the one given; nothing was allowed",
                code="grant-mismatch",
                path="digest",
                hint=f"The package's digest is {opened.digest}.",
            )
        manifest = opened.manifest
        trust.default_store().add(opened.digest, name=manifest.name, version=manifest.version)
        click.echo(f"allowed {manifest.name} {manifest.version} {opened.digest}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the grants as JSON.")
def list_(as_json: bool) -> None:
    """List what is allowed.

    \b
    Example:
      modelpack trust list
    """
    with guard(as_json=as_json):
        from modelpack import trust

        grants = trust.default_store().grants()
        if as_json:
            show_json([{f: getattr(grant, f) for f in trust.Grant.__slots__} for grant in grants])
            return
        for grant in grants:
            how = "saved here" if grant.source == "saved" else "allowed by you"
            click.echo(f"{grant.digest}  {grant.name} {grant.version}  {how} {grant.granted}")
        if not grants:
            click.echo("nothing is allowed", err=True)


@command.command("remove")
@click.argument("digest")
def remove(digest: str) -> None:
    """Withdraw the grant for DIGEST.

    \b
    Example:
      modelpack trust remove sha256:4f0c…
    """
    with guard():
        from modelpack import trust
        from modelpack.errors import TrustError

        if not trust.default_store().remove(digest):
            raise TrustError("this digest is not allowed, so there is nothing to withdraw", code="grant-absent")
        click.echo(f"withdrawn {digest}")
