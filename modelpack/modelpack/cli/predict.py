"""``modelpack predict``: score files in batch."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from modelpack.cli import runtime
from modelpack.cli.given import given_engine, given_keep, given_params
from modelpack.cli.place import enter_environment, env_option
from modelpack.cli.report import answers_alone, drop_output, guard
from modelpack.errors import UsageError

__all__ = ["command"]

_FILES = ("csv", "jsonl", "parquet", "arrow", "arrows")


class _Stopped(BaseException):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@click.command()
@click.argument("package", type=click.Path())
@click.option("-i", "--input", "inputs", metavar="IN", multiple=True, required=True,
              help="A file, a directory, a Delta table, a quoted pattern, s3://…, - (stdin); repeatable.")  # fmt: skip
@click.option("-o", "--output", metavar="OUT", required=True,
              help="A file, a directory (ends in / or exists: one file for each input), or - for stdout.")  # fmt: skip
@click.option("--input-format", type=click.Choice(_FILES), help="Instead of what the name says.  [stdin: jsonl]")
@click.option("--output-format", type=click.Choice((*_FILES, "delta")),
              help="Instead of what the name says; delta: OUT is a Delta table.  [stdout: jsonl]")  # fmt: skip
@click.option("--at-version", type=click.IntRange(0), help="Read a Delta table as it was at this version.")
@click.option("--at-time", metavar="TIME", help="Read a Delta table as it was then: 2026-01-31T08:00:00Z.")
@click.option("--where", metavar="EXPR",
              help="Score only rows for which this holds: \"month >= 6 and carrier in ('AA', 'UA')\".")  # fmt: skip
@click.option("--mode", type=click.Choice(["append", "overwrite"]),
              help="Add to the rows of a Delta table, or replace them.  [default: append]")  # fmt: skip
@click.option("--job", metavar="NAME",
              help="The run's name in a Delta table, which takes it once.  [default: from its inputs]")  # fmt: skip
@click.option("--keep", metavar="NAMES", default="all", show_default=True,
              help="Input columns written beside the answers: all, none, or names with commas.")  # fmt: skip
@click.option("-p", "--param", "pairs", metavar="NAME=VALUE", multiple=True,
              help="A param of the model; the value is JSON, or else text. Can be repeated.")  # fmt: skip
@click.option("--params", metavar="JSON", help="The model's params as a JSON object.")
@click.option("--on-error", metavar="FILE", type=click.Path(path_type=Path),
              help="Write rows that do not fit to this file (JSON Lines) and go on, instead of stopping.")  # fmt: skip
@click.option("--max-rejects", type=click.IntRange(0), help="Stop once more rows than this are refused.")
@click.option("--batch-size", type=click.IntRange(1), help="Rows scored at a time.  [default: 16384]")
@click.option("--jobs", metavar="N", type=click.IntRange(1),
              help="Batches scored at a time.  [default: one a core, up to 8; 1 if PACKAGE runs code]")  # fmt: skip
@click.option("--workers", metavar="N", type=click.IntRange(1),
              help="Processes that make the files of a directory or table.  [default: this one]")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@click.option("--restart", is_flag=True, help="Forget what an interrupted run to the same directory has finished.")
@click.option("--progress/--no-progress", default=True, show_default=True,
              help="Show how far it is: a bar on a terminal, else a line every half a minute.")  # fmt: skip
@click.option("--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True,
              help="Where rows are scored; spark: by executors that see the same paths.")  # fmt: skip
@click.option("--master", metavar="URL", help="The Spark to use, as in spark-submit.  [default: as configured]")
@click.option("--allow-code", metavar="DIGEST", help="Let the package with this digest run its code.")
@click.option("--flavor", metavar="NAME", help="Load with this flavor instead of the first that can be loaded.")
@env_option
@click.option("--json", "as_json", is_flag=True, help="Print a summary, or the error, as JSON.")
def command(package: str, *, inputs: tuple[str, ...], output: str, as_json: bool, env: str, **given: Any) -> None:
    """Score files with the model in PACKAGE and write its answers, beside the columns they belong to.

    The output appears when all of it is written, or not at all. Formats: CSV, JSON Lines, Parquet, Arrow IPC, Delta.

    \b
    Example:
      modelpack predict churn -i rows.csv -o scores.parquet
      modelpack predict churn -i 'rows/*.parquet' -o scores.jsonl --keep id --on-error rejects.jsonl
      modelpack predict churn -i 'rows/*.parquet' -o scores/
      modelpack predict churn -i tables/features -o tables/scores --output-format delta
    """
    with guard(as_json=as_json):
        enter_environment(env, package, given["allow_code"])
    with guard(as_json=as_json), _stoppable(output) as check:
        done = _run(package, inputs, output, {**given, "check": check})
        if as_json:
            # On stdout, unless that is where the answers went.
            click.echo(json.dumps(done.to_json(), ensure_ascii=False, indent=2), err=output == "-")
        if done.already:
            click.echo(f"modelpack: {output} has all of this already; nothing was written", err=True)
        if done.rejected:
            total = done.rejected + done.rows
            click.echo(f"modelpack: {done.rejected:,} of {total:,} rows refused, see {done.rejects}", err=True)


def _run(package: str, inputs: Sequence[str], output: str, given: Mapping[str, Any]) -> Any:
    batch = runtime("batch")
    if given["max_rejects"] is not None and given["on_error"] is None:
        raise UsageError("--max-rejects needs --on-error", code="option-alone", path="--max-rejects")
    raw = given_params(given["params"], given["pairs"])
    chosen = {name: given[name] for name in ("batch_size", "mode", "job", "jobs", "workers") if given[name] is not None}
    options = batch.Options(
        input_format=given["input_format"],
        output_format=given["output_format"],
        keep=given_keep(given["keep"]),
        on_error=given["on_error"],
        max_rejects=given["max_rejects"],
        overwrite=given["overwrite"],
        restart=given["restart"],
        where=given["where"],
        when=batch.When(version=given["at_version"], time=_time(given["at_time"])),
        progress=given["progress"],
        check=given["check"],
        **chosen,
    )
    # Inputs and output are looked at before the model is loaded, so that a typing error costs no time.
    plan = batch.make(inputs, output, options)
    engine = given_engine(given["engine"], given["master"])
    if given["workers"] is not None and given["engine"] != "local":
        message = f"the engine {given['engine']} has workers of its own"
        raise UsageError(message, code="option-alone", path="--workers", hint="Leave it out.")
    engine.check(plan, options)
    from modelpack import coerce
    from modelpack.loading import load

    share = partial(_share_cores, given["workers"])
    with answers_alone() if output == "-" else nullcontext() as answers:
        model = load(package, allow_code=given["allow_code"], flavor=given["flavor"], chosen=share)
        values = coerce.params(raw, model.signature, wire="json")
        with engine.started(model) as found:
            return batch.run(model, plan, replace(options, params=values, engine=found, stdout=answers))


def _share_cores(workers: int | None, candidate: Any) -> None:
    """Give each call its share of the cores, whatever --jobs says, as floats may depend on the number of threads."""
    calls = workers if candidate.trust == "code" else runtime("batch.together").jobs(candidate.trust)
    if calls is not None:
        os.environ.update(runtime("cores").library_threads(calls, os.environ))


def _time(text: str | None) -> dt.datetime | None:
    try:
        return None if text is None else dt.datetime.fromisoformat(text)
    except ValueError as exc:
        hint = "Write it as 2026-01-31T08:00:00Z."
        raise UsageError(f"{text!r} is not a time", code="time-invalid", path="--at-time", hint=hint) from exc


@contextmanager
def _stoppable(output: str) -> Iterator[Callable[[], None]]:
    """End cleanly on SIGINT and SIGTERM: what is half written is removed.

    Yields a check to call now and then: Python drops an exception that a signal raises inside a finalizer.
    """
    asked: list[int] = []

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_IGN)
        asked.append(number)
        raise _Stopped(number)

    def check() -> None:
        if asked:
            raise _Stopped(asked[0])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    except (_Stopped, KeyboardInterrupt) as exc:
        number = exc.number if isinstance(exc, _Stopped) else signal.SIGINT
        left = "" if output == "-" or "://" in output else "; nothing was written"
        if runtime("batch.destination").place_of(Path(output)).exists():
            left += "; what is finished is kept for the same command to go on"
        click.echo(f"modelpack: stopped by {signal.Signals(number).name}{left}", err=True)
        raise SystemExit(128 + number) from None
    except BrokenPipeError:
        drop_output()
        raise SystemExit(0) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
