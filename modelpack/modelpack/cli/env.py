"""``modelpack env``: the environment a package needs: shown, compared, locked, built, run in."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from modelpack.cli.report import guard, printable, show_json

__all__ = ["command"]


@click.group("env")
def command() -> None:
    """Show the environment a package needs, compare, lock and build it.

    \b
    Example:
      modelpack env diff churn
      modelpack env lock churn -o churn-locked
      modelpack env create churn-locked
      modelpack serve churn-locked --env isolated
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
            return
        from modelpack.environments import wanted

        # The lines are for an installer, so what a stranger wrote must not be an option of it.
        click.echo("\n".join(wanted.requirements(environment)))


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
        from modelpack import hardware
        from modelpack.package import Package

        opened = Package.open(package)
        found = opened.differences()
        found += hardware.compare(opened.manifest.hardware, opened.environment.captured)
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


def _with_indexes(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where distributions are, beside uv's own settings."""
    links = click.option("--find-links", metavar="PLACE", multiple=True,
                         help="Look for wheels in this directory too. Can be repeated.")  # fmt: skip
    alone = click.option("--no-index", is_flag=True, help="Ask no package index.")
    return links(alone(function))


def _indexes(find_links: tuple[str, ...], no_index: bool) -> Any:
    from modelpack.environments.uv import Indexes

    return Indexes(find_links=find_links, no_index=no_index)


@command.command("lock")
@click.argument("package", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Where the new package is written.")
@click.option("--in-place", is_flag=True, help="Replace PACKAGE by it, in one step.")
@click.option("--universal", is_flag=True, help="Lock for every platform, not for this one alone.")
@click.option("--partial", is_flag=True, help="Ask no index: the versions installed here, without hashes.")
@click.option("--builds", is_flag=True, help="Take what has no wheel too: locking and installing it run its code.")
@click.option("--yanked", is_flag=True, help="Take versions that their index has withdrawn.")
@click.option("--allow-code", metavar="DIGEST", help="Allow the package with exactly this digest to build from source.")
@_with_indexes
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def lock(
    package: str,
    output: str | None,
    in_place: bool,
    allow_code: str | None,
    find_links: tuple[str, ...],
    no_index: bool,
    as_json: bool,
    **options: bool,
) -> None:
    """Add to PACKAGE a lock of all that it needs, with hashes (PEP 751), or renew the one it has.

    The result is another package with another digest; its provenance names this one's. Indexes are those of uv's own
    settings (UV_INDEX, UV_DEFAULT_INDEX, the user's own uv.toml).

    \b
    Example:
      modelpack env lock churn -o churn-locked
      modelpack env lock churn --in-place --universal
    """
    with guard(as_json=as_json):
        from modelpack.environments import locking
        from modelpack.errors import UsageError

        if (output is None) != in_place:
            raise UsageError("give either --output or --in-place", code="output-missing", path="output")
        indexes = _indexes(find_links, no_index)
        made = locking.lock(package, output, indexes=indexes, allow_code=allow_code, **options)
        pins, where = locking.pins(made, elsewhere=True)
        if as_json:
            facts = {"path": where.path, "kind": where.kind, "partial": options["partial"], "packages": len(pins)}
            show_json({"ok": True, "path": str(made.path), "digest": made.digest, "lock": facts})
        else:
            kind = "versions only, without hashes" if options["partial"] else "with hashes"
            click.echo(f"locked {made.manifest.name} {made.manifest.version} {made.digest}")
            click.echo(f"  {where.path}: {len(pins)} distributions, {kind}")


@command.command("create")
@click.argument("package", type=click.Path())
@click.option("--path", type=click.Path(path_type=Path), help="Build it here.  [default: in the user's cache]")
@click.option("--unhashed", is_flag=True, help="Take a partial lock, which fixes versions and no digests.")
@click.option("--allow-code", metavar="DIGEST", help="Allow the package with exactly this digest to build from source.")
@_with_indexes
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def create(
    package: str,
    path: Path | None,
    unhashed: bool,
    allow_code: str | None,
    find_links: tuple[str, ...],
    no_index: bool,
    as_json: bool,
) -> None:
    """Build the environment that the lock of PACKAGE describes, and print where it is.

    Only wheels with the digests of the lock are installed. What is there already is not built again. Commands with
    `--env isolated` can then run where nothing can be written.

    \b
    Example:
      modelpack env create churn
      modelpack env create churn --path venv
    """
    with guard(as_json=as_json):
        from modelpack.environments import cache, layer
        from modelpack.errors import EnvironmentMismatch
        from modelpack.package import Package

        indexes = _indexes(find_links, no_index)
        opened = Package.open(package)
        built = cache.create(opened, path, indexes=indexes, unhashed=unhashed, allow_code=allow_code)
        if path is None:
            # Built it may be although modelpack cannot run in it.
            with contextlib.suppress(EnvironmentMismatch):
                layer.prepare(built)
        if as_json:
            show_json({"ok": True, "path": str(built.path), "built": built.fresh, "packages": len(built.pins)})
        else:
            click.echo(str(built.path))


@command.command("vendor")
@click.argument("package", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="Where the new package is written, the wheels inside.")
@click.option("--in-place", is_flag=True, help="Replace PACKAGE by it, in one step.")
@click.option("--beside", type=click.Path(path_type=Path), help="Put the wheels into this directory instead.")
@_with_indexes
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def vendor(
    package: str,
    output: str | None,
    in_place: bool,
    beside: Path | None,
    find_links: tuple[str, ...],
    no_index: bool,
    as_json: bool,
) -> None:
    """Put the wheels that the lock of PACKAGE names into it, or beside it, so that no index is needed any more.

    They are fetched with pip, by pip's own settings, and each must have a digest of the lock.

    \b
    Example:
      modelpack env vendor churn -o churn-complete
      modelpack env vendor churn --beside wheels
    """
    with guard(as_json=as_json):
        from modelpack.environments import vendoring
        from modelpack.errors import UsageError

        if (output is not None) + in_place + (beside is not None) != 1:
            raise UsageError("give one of --output, --in-place, --beside", code="output-missing", path="output")
        indexes = _indexes(find_links, no_index)
        if beside is not None:
            names = vendoring.beside(package, beside, indexes=indexes)
            if as_json:
                show_json({"ok": True, "path": str(beside), "wheels": names})
            else:
                click.echo(str(beside))
            return
        made = vendoring.into(package, output, indexes=indexes)
        if as_json:
            show_json({"ok": True, "path": str(made.path), "digest": made.digest})
        else:
            click.echo(f"vendored {made.manifest.name} {made.manifest.version} {made.digest}")


@command.command("export")
@click.argument("package", type=click.Path())
@click.option("--format", "form", required=True, type=click.Choice(["pylock", "requirements", "conda", "dockerfile"]))
@click.option("--base", metavar="IMAGE", help="What the Dockerfile starts from, best with @sha256:…")
def export(package: str, form: str, base: str | None) -> None:
    """Print the environment of PACKAGE as another tool takes it.

    The Dockerfile is built in a directory that holds the package as `package/`.

    \b
    Example:
      modelpack env export churn --format requirements > requirements.txt
      modelpack env export churn --format dockerfile > Dockerfile
    """
    with guard():
        from modelpack.environments import export as exporting
        from modelpack.package import Package

        click.echo(exporting.export(Package.open(package), form, base=base), nl=False)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:
    """List the environments in the cache, with the package each was first built for.

    \b
    Example:
      modelpack env list
    """
    with guard(as_json=as_json):
        from modelpack.environments import cache

        found = cache.listed()
        if as_json:
            show_json(found)
            return
        for one in found:
            used = dt.datetime.fromtimestamp(one["used"], dt.UTC).strftime("%Y-%m-%d")
            about = f"{one['package']}, {len(one['pins'])} distributions, last used {used}"
            click.echo(f"{printable(one['path'])}  {printable(about)}")


@command.command("prune")
@click.option("--days", default=30.0, show_default=True, type=click.FloatRange(0), help="Unused for so many days.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def prune(days: float, as_json: bool) -> None:
    """Remove environments that were not used for a while; those that something runs in stay.

    \b
    Example:
      modelpack env prune --days 7
    """
    with guard(as_json=as_json):
        from modelpack.environments import cache

        removed = cache.prune(days=days)
        if as_json:
            show_json({"ok": True, "removed": removed})
        else:
            click.echo("\n".join(map(printable, removed)) or "nothing to remove")
