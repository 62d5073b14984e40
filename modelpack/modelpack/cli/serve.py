"""``modelpack serve``: score requests over HTTP."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from modelpack.cli import runtime
from modelpack.cli.place import enter_environment, env_option
from modelpack.cli.report import guard

__all__ = ["command"]

_SIZE = re.compile(r"(\d{1,15}) ?([KMG]?)(i?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Size(click.ParamType[int]):
    """A number of bytes: ``1000``, ``64K``, ``100MB``; a K is 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size such as 1000, 64K or 100MB", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


class Workers(click.ParamType[int]):
    """A number of processes, or ``auto`` (0): one for each core."""

    name = "number|auto"
    most = 512

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        if value == "auto" or isinstance(value, int):
            return 0 if value == "auto" else int(value)
        if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= self.most:
            self.fail(f"{value!r} is neither auto nor a number from 1 to {self.most}", param, ctx)
        return int(value)


@click.command()
@click.argument("package", type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--workers", default=1, show_default=True, type=Workers(), help="Number of processes; auto: one for each core."
)
@click.option(
    "--threads",
    type=click.IntRange(1, 512),
    help="Calls of the model at a time per worker.  [default: one per core; 1 for code]",
)
@click.option("--max-body", default="100MB", show_default=True, type=Size(), help="Largest request body.")
@click.option(
    "--max-bodies",
    type=Size(),
    help="Bytes of large bodies that a worker holds at a time.  [default: its share of a quarter of the memory]",
)
@click.option(
    "--grace", default=30.0, show_default=True, type=click.FloatRange(0), help="Seconds to finish at the end."
)
@click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(0), help="Seconds for an answer; 0: any."
)
@click.option(
    "--stall",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds that a request may stand still while it comes; 0: any.",
)
@click.option(
    "--batching",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "on", "off"]),
    help="Score requests together that arrive together; auto: if that changes no answer.",
)
@click.option(
    "--batch-rows", default=1024, show_default=True, type=click.IntRange(1), help="Rows scored together at most."
)
@click.option(
    "--queue", default=512, show_default=True, type=click.IntRange(1), help="Requests that may wait for the model."
)
@click.option(
    "--hang",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds without a sign of life outside a prediction before a worker is replaced; 0: any.",
)
@click.option(
    "--max-memory", type=Size(), help="Memory of a worker beyond which another takes its place.  [default: any]"
)
@click.option("--allow-code", metavar="DIGEST", help="Let the package with this digest run its code.")
@click.option(
    "--flavor", metavar="NAME", help="Load with this flavor instead of the checked twin or the first that can be."
)
@env_option
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option("--metrics/--no-metrics", default=True, show_default=True, help="Tell Prometheus at GET /metrics.")
@click.option("--json-logs", is_flag=True, help="Write the log and the ready line as JSON.")
def command(package: str, *, allow_code: str | None, flavor: str | None, env: str, **options: Any) -> None:
    """Serve the model in PACKAGE over HTTP: POST /invocations, GET /docs.

    Prints one line when it is ready. SIGTERM finishes the requests in flight and ends with exit code 0.

    \b
    Example:
      modelpack serve churn --port 5000 &
      curl http://127.0.0.1:5000/invocations -H 'Content-Type: application/json' \\
        -d '{"dataframe_records": [{"age": 31}]}'
    """
    with guard(as_json=options["json_logs"]):
        enter_environment(env, package, allow_code)
        cores = runtime("cores")
        options["workers"] = options["workers"] or cores.usable_cores()
        # Before anything imports numpy: the libraries below it look only once.
        os.environ.update(cores.library_threads(options["workers"], os.environ))
        supervisor, settings = runtime("supervisor"), runtime("settings")
        chosen = {name: value for name, value in options.items() if value is not None}
        source = settings.Source(package=package, allow_code=allow_code, flavor=flavor)
        announce = _announce_json if options["json_logs"] else _announce
        code = supervisor.serve(source, settings.Settings(**chosen), announce)
    sys.exit(code)


def _announce(url: str, about: Mapping[str, str]) -> None:
    digest = about["digest"].removeprefix("sha256:")[:12]
    flavor = f"flavor {about['flavor']}"
    if "twin_of" in about:
        flavor += f", checked twin of {about['twin_of']}"
    click.echo(f"ready: {url} serves {about['name']} {about['version']} (sha256:{digest}, {flavor})")


def _announce_json(url: str, about: Mapping[str, str]) -> None:
    click.echo(json.dumps({"event": "ready", "url": url, **about}))
