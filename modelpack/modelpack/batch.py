"""Files scored in batch: `modelpack.predict_files` (docs/batch.md)."""

from __future__ import annotations

import datetime as dt
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

if TYPE_CHECKING:
    from modelpack.model import Model

__all__ = ["Done", "Options", "predict_files"]


class Options(TypedDict, total=False):
    """What :func:`predict_files` may be told; each name is that of an option of ``modelpack predict``."""

    input_format: str
    output_format: str
    keep: Sequence[str] | None
    params: Mapping[str, Any]
    where: str
    batch_size: int
    jobs: int | None
    workers: int | None
    on_error: str | os.PathLike[str] | None
    max_rejects: int | None
    overwrite: bool
    restart: bool
    at_version: int | None
    at_time: dt.datetime | None
    mode: str
    job: str
    progress: bool


class Done(Protocol):
    """What was done: ``rows`` scored, ``rejected`` written aside, from ``files`` into ``outputs``.

    ``already``: the same run was done before, and nothing was to do. ``resumed``: how many files were finished before.
    """

    rows: int
    rejected: int
    files: int
    seconds: float
    package: str
    outputs: Sequence[str]
    rejects: str | None
    already: bool
    resumed: int


def predict_files(
    model: Model,
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    **options: Unpack[Options],
) -> Done:
    """Score files or tables into files, a folder or a table, in bounded memory, as ``modelpack predict`` does.

    ``inputs`` and ``output`` are what the command takes: paths, patterns, URLs; an output that ends in "/" is a folder.
    The output appears only when it is whole. An error leaves nothing behind but, of a folder, what is finished: the
    same call goes on from there.

    Raises:
        UsageError: the inputs or the output cannot be what they should be.
        InputError: a row that does not fit the signature, by file and row number, unless ``on_error`` says where to
            write such rows; or a file that cannot be read.
        ModelError: the model raised, with file and rows.
    """
    given: dict[str, Any] = dict(options)
    batch = importlib.import_module("modelpack_server.batch")
    when = batch.When(version=given.pop("at_version", None), time=given.pop("at_time", None))
    if given.get("on_error") is not None:
        given["on_error"] = Path(given["on_error"])
    several = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    done: Done = batch.predict_files(
        model, [_text(path) for path in several], _text(output), batch.Options(when=when, **given)
    )
    return done


def _text(path: str | os.PathLike[str]) -> str | Path:
    return path if isinstance(path, str) else Path(path)
