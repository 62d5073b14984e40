"""What all commands share: how errors are shown, and the exit codes 0 (done), 1 (failed), 2 (wrong usage)."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from modelpack.errors import ModelpackError, SaveError, UsageError

__all__ = ["MAX_FAULTS", "answers_alone", "drop_output", "fail", "guard", "printable", "show_json"]

MAX_FAULTS = 50


@contextlib.contextmanager
def guard(*, as_json: bool = False) -> Iterator[None]:
    """Turn a ModelpackError into readable lines on stderr (or JSON on stdout) and the right exit code."""
    try:
        try:
            yield
        except ModelpackError as exc:
            fail(exc, as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has gone (`modelpack inspect … | head`); that is no error of ours.
        drop_output()
        raise SystemExit(0) from None
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        # Commands say of their files which one it was, so this is what they print.
        error = SaveError(f"standard output cannot be written: {exc.strerror}", code="output-unwritable")
        click.echo(f"modelpack: {_line(error)}", err=True)
        drop_output()
        raise SystemExit(1) from None


def fail(error: ModelpackError, *, as_json: bool = False) -> None:
    """Show the error and exit: 2 for wrong usage, else 1."""
    if as_json:
        show_json({"ok": False, "error": error.to_json()})
    else:
        click.echo(f"modelpack: {_line(error)}", err=True)
        for fault in error.faults[1:MAX_FAULTS]:
            click.echo(f"  {printable(str(fault))}", err=True)
        if len(error.faults) > MAX_FAULTS:
            click.echo(f"  … and {len(error.faults) - MAX_FAULTS} more", err=True)
        cause = error.__cause__
        if cause is not None and error.code == "model-raised":
            click.echo(f"  {type(cause).__name__}: {printable(str(cause))}", err=True)
    raise SystemExit(2 if isinstance(error, UsageError) else 1)


def show_json(value: Any) -> None:
    """Print a value as JSON on stdout; what a terminal would act on is escaped, which leaves the value the same."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def _line(error: ModelpackError) -> str:
    text = f"{error.path}: {error.message}" if error.path else error.message
    return f"{printable(text)} [{error.code}]" + (f"\n  {printable(error.hint)}" if error.hint else "")


def printable(text: str) -> str:
    """Return text on one line that a terminal shows as it is: what a package says must not clear it or fake a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def drop_output() -> None:
    """Let what Python still holds for standard output go nowhere: its reader has gone, or there is no room for it."""
    # Standard output that is no file, as in tests, holds nothing back.
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextlib.contextmanager
def answers_alone() -> Iterator[IO[bytes]]:
    """Yield standard output for answers alone: what a model prints goes to standard error, until the process ends.

    That is true of native libraries and of child processes too, and of what is printed at the very end. After an error
    Python prints where the answers went, as what the command says of it belongs there (``--json``).
    """
    printed = sys.stdout
    try:
        descriptor = printed.fileno()
    except io.UnsupportedOperation:
        # No file, as in tests: nothing but Python writes to it.
        yield printed.buffer
        return
    printed.flush()
    # Not inherited: a child process that outlives us must not keep the reader of our answers waiting for their end.
    answers = os.fdopen(os.dup(descriptor), "wb")
    alone = io.TextIOWrapper(answers, encoding=printed.encoding, errors=printed.errors)
    os.dup2(2, descriptor)
    sys.stdout = sys.stderr
    try:
        yield answers
        alone.flush()
        alone.close()
    except BaseException:
        sys.stdout = alone
        raise
