"""``modelpack stream``: score a table as it grows, or lines as they come."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from modelpack.cli import runtime
from modelpack.cli.given import given_engine, given_keep, given_names, given_params
from modelpack.cli.place import enter_environment, env_option
from modelpack.cli.report import answers_alone, guard, printable, show_json
from modelpack.errors import UsageError

__all__ = ["command"]

_TABLES_ONLY = ("once", "from_version", "max_rows", "interval", "on_gap", "changes", "key", "job", "new_package",
                "status", "metrics_port", "master")  # fmt: skip


@click.command()
@click.argument("package", type=click.Path())
@click.option("--from", "source", metavar="TABLE", help="The Delta table whose new rows are scored, also s3://….")
@click.option("--to", "output", metavar="TABLE", help="The Delta table the answers are appended to; made if absent.")
@click.option("--once", is_flag=True, help="Score what is there, then stop.")
@click.option("--keep", metavar="NAMES", default="all", show_default=True,
              help="Columns written beside the answers: all, none, or names with commas.")  # fmt: skip
@click.option("-p", "--param", "pairs", metavar="NAME=VALUE", multiple=True,
              help="A param of the model; the value is JSON, or else text. Can be repeated.")  # fmt: skip
@click.option("--params", metavar="JSON", help="The model's params as a JSON object.")
@click.option("--from-version", type=click.IntRange(0), help="Begin with this version's rows, not with all there are.")
@click.option("--interval", type=click.FloatRange(0.001), metavar="SECONDS",
              help="How long to wait between looks at an idle table.  [default: 1]")  # fmt: skip
@click.option("--max-rows-per-commit", "max_rows", type=click.IntRange(1),
              help="Rows scored in one commit; a commit holds whole files.  [default: 100000]")  # fmt: skip
@click.option("--on-error", metavar="TABLE",
              help="Write rows that do not fit to this Delta table (lines: to this file) and go on.")  # fmt: skip
@click.option("--max-rejects", type=click.IntRange(0), help="Stop once more rows than this are refused.")
@click.option("--on-gap", type=click.Choice(["fail", "skip"]), help="What to do about rows that are gone already.")
@click.option("--changes", type=click.Choice(["fail", "append", "upsert"]),
              help="What to do about updates and deletes: score what is new or rewritten; follow by key.")  # fmt: skip
@click.option("--key", metavar="NAMES", help="The columns by which upsert tells rows apart, with commas.")
@click.option("--job", metavar="NAME", help="The name of the position in the output.  [default: default]")
@click.option("--new-package", is_flag=True, help="Go on where another package came to.")
@click.option("--status", is_flag=True, help="Say how far the stream is, and score nothing.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), metavar="PORT",
              help="Answer Prometheus at http://HOST:PORT/metrics.")  # fmt: skip
@click.option("--metrics-host", metavar="HOST", help="Where to listen for Prometheus.  [default: 127.0.0.1]")
@click.option("--quiet", is_flag=True, help="Say nothing about each commit.")
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True,
              help="Where rows are scored; spark: by executors that see the same paths.")  # fmt: skip
@click.option("--master", metavar="URL", help="The Spark to use, as in spark-submit.  [default: as configured]")
@click.option("--allow-code", metavar="DIGEST", help="Let the package with this digest run its code.")
@click.option("--flavor", metavar="NAME", help="Load with this flavor instead of the first that can be loaded.")
@env_option
@click.option("--json", "as_json", is_flag=True, help="Print a summary, the status, or the error, as JSON.")
def command(package: str, *, source: str | None, output: str | None, as_json: bool, env: str, **given: Any) -> None:
    """Score the rows that are added to a Delta table, for ever, each exactly once.

    The answers and how far the stream has come are one commit of the output, so it can be killed at any time. Without
    --from and --to it scores JSON Lines from standard input to standard output, line by line.

    \b
    Example:
      modelpack stream churn --from tables/features --to tables/scores --keep id
      modelpack stream churn --from tables/features --to tables/scores --status
      tail -f rows.jsonl | modelpack stream churn
    """
    with guard(as_json=as_json):
        enter_environment(env, package, given["allow_code"])
        if given["max_rejects"] is not None and given["on_error"] is None:
            raise UsageError("--max-rejects needs --on-error", code="option-alone", path="--max-rejects")
        if given["metrics_host"] is not None and given["metrics_port"] is None:
            raise UsageError("--metrics-host needs --metrics-port", code="option-alone", path="--metrics-host")
        if source is None and output is None:
            _lines(package, {**given, "as_json": as_json})
        elif source is None or output is None:
            raise UsageError("--from and --to go together", code="option-alone", path="--to" if source else "--from")
        elif given["status"]:
            _status(package, source, output, given, as_json=as_json)
        else:
            _tables(package, source, output, {**given, "as_json": as_json})


def _tables(package: str, source: str, output: str, given: Mapping[str, Any]) -> None:
    stream = runtime("stream")
    raw = given_params(given["params"], given["pairs"])
    names = ("interval", "max_rows", "on_gap", "changes", "job", "from_version", "on_error", "max_rejects")
    chosen = {name: given[name] for name in names if given[name] is not None}
    say = (lambda _: None) if given["quiet"] else _say
    engine = given_engine(given["engine"], given["master"])
    engine.check_tables([source, output, *([given["on_error"]] if given["on_error"] else [])])
    with _waiting() as waiter:
        model, values = _loaded(package, raw, given)
        with engine.started(model) as found:
            options = stream.Options(
                params=values,
                keep=given_keep(given["keep"]),
                key=_key(given),
                once=given["once"],
                new_package=given["new_package"],
                metrics=(given["metrics_host"] or "127.0.0.1", given["metrics_port"])
                if given["metrics_port"]
                else None,
                say=say,
                engine=found,
                **chosen,
            )
            done = stream.run(model, source, output, options, waiter)
    if given["as_json"]:
        show_json(done.to_json())
    _tell_refused(done, given)


def _loaded(package: str, raw: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Any, Any]:
    from modelpack import coerce
    from modelpack.loading import load

    model = load(package, allow_code=given["allow_code"], flavor=given["flavor"])
    return model, coerce.params(raw, model.signature, wire="json")


def _key(given: Mapping[str, Any]) -> tuple[str, ...] | None:
    return given_names(given["key"]) if given["key"] else None


def _say(text: str) -> None:
    click.echo(f"modelpack: {printable(text)}", err=True)


class _Waiter:
    """Sleeps, and is woken by the first signal that asks to stop."""

    def __init__(self, wake: int) -> None:
        self.asked = False
        self._wake = wake

    def wait(self, seconds: float | None, file: int | None = None) -> None:
        if not self.asked:
            select.select([self._wake] if file is None else [self._wake, file], [], [], seconds)


@contextmanager
def _waiting() -> Iterator[_Waiter]:
    """Stop for SIGINT and SIGTERM behind the commit that is under way; a second one stops at once, as if killed."""
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    waiter = _Waiter(wake)

    def stop(number: int, _: FrameType | None) -> None:
        waiter.asked = True
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    # Written to by the signal itself. Python runs the handler later, which would be too late for one that comes just
    # before the wait begins.
    descriptor = signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    try:
        yield waiter
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(ring)


def _lines(package: str, given: Mapping[str, Any]) -> None:
    for name in _TABLES_ONLY:
        if given[name] is not None and given[name] is not False:
            option = f"--{name.replace('_', '-')}" if name != "max_rows" else "--max-rows-per-commit"
            raise UsageError(f"{option} needs --from and --to", code="option-alone", path=option)
    if given["engine"] != "local":
        raise UsageError("--engine needs --from and --to", code="option-alone", path="--engine")
    stream = runtime("stream")
    raw = given_params(given["params"], given["pairs"])
    with _waiting() as waiter, answers_alone() as answers:
        model, values = _loaded(package, raw, given)
        options = stream.Options(
            params=values,
            keep=given_keep(given["keep"]),
            on_error=given["on_error"],
            max_rejects=given["max_rejects"],
        )
        done = stream.pipe.run(model, sys.stdin.buffer, answers, options, waiter)
    if given["as_json"]:
        click.echo(json.dumps(done.to_json(), ensure_ascii=False, indent=2), err=True)
    _tell_refused(done, given)


def _tell_refused(done: Any, given: Mapping[str, Any]) -> None:
    if done.rejected:
        total = done.rejected + done.rows
        click.echo(f"modelpack: {done.rejected:,} of {total:,} rows refused, see {given['on_error']}", err=True)


def _status(package: str, source: str, output: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    from modelpack.package import Package

    stream = runtime("stream")
    # What decides which rows are before the stream; the other words of its command say nothing here.
    names = ("job", "from_version", "on_gap", "changes")
    chosen = {name: given[name] for name in names if given[name] is not None}
    options = stream.Options(key=_key(given), say=_say, **chosen)
    found = stream.status(Package.peek(package).digest, source, output, options)
    if as_json:
        show_json(found.to_json())
        return
    made = "not there yet" if found.output_version is None else f"version {found.output_version}"
    scored = "nothing is scored yet" if found.scored is None else f"scored up to version {found.scored}"
    lag = f", the first of them for {found.lag:.1f} s" if found.files else ""
    click.echo(f"source   {printable(source)}: version {found.source_version}")
    click.echo(f"output   {printable(output)}: {made}")
    click.echo(f"position {scored}, next is file {found.index} of version {found.version}")
    click.echo(f"backlog  {found.rows:,} rows in {found.files} files of {found.versions} versions{lag}")
    if found.package is False:
        click.echo("package  another one scored up to here; to go on with this one takes --new-package")
