"""What a batch run is told, and what it tells when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from modelpack.errors import UsageError
from modelpack_server.batch.formats import Format
from modelpack_server.batch.where.grammar import parse
from modelpack_server.delta.history import NOW, When

__all__ = ["BATCH_SIZE", "Mode", "Options", "Summary", "check_rejects", "elsewhere", "with_engine"]

BATCH_SIZE = 16_384

Mode = Literal["append", "overwrite"]


def _go_on() -> None:
    """Let the run go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How to score files.

    ``keep``: columns written beside the answers (None: all). ``on_error``: where rows that do not fit are written
    (None: the first one stops the run), at most ``max_rejects`` of them. ``restart``: forget what an
    interrupted run into the same folder has finished. ``when``: the version of a Delta table that is
    read. ``where``: which rows are scored (None: all). ``mode``: whether rows are added to a Delta table or take the
    place of those there; ``job``: the name by which it knows the run (None: one made from inputs, package and params).
    ``jobs``: how many batches are scored at a time (None: one on each core, up to 8, or one if the package runs code).
    ``workers``: how many processes make files, each with a model of its own (None: this one makes them).
    ``progress``: show on stderr how far it is. ``check``: called between batches; what it raises ends the run.
    ``engine``: makes the files elsewhere (None: here). ``stdout``: what the output ``-`` is (None: ``sys.stdout``).
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    input_format: Format | None = None
    output_format: Format | None = None
    keep: Sequence[str] | None = None
    batch_size: int = BATCH_SIZE
    on_error: Path | None = None
    max_rejects: int | None = None
    overwrite: bool = False
    restart: bool = False
    when: When = NOW
    where: str | None = None
    mode: Mode = "append"
    job: str | None = None
    jobs: int | None = None
    workers: int | None = None
    progress: bool = False
    check: Callable[[], None] = _go_on
    engine: Any = None
    stdout: IO[bytes] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError("a batch has at least one row", code="batch-size", path="batch_size")
        check_rejects(self.on_error)
        if self.jobs is not None and self.jobs < 1:
            raise UsageError("at least one batch is scored at a time", code="jobs", path="jobs")
        if self.workers is not None and self.workers < 1:
            raise UsageError("at least one process makes files", code="workers", path="workers")
        if self.workers is not None and self.jobs is not None:
            message = "each of several processes scores one batch at a time"
            raise UsageError(message, code="option-alone", path="jobs", hint="Give jobs or workers, not both.")
        if self.job is not None and (not self.job or "/" in self.job):
            raise UsageError("a job has a name without '/'", code="job-name", path="job")
        if self.where is not None:
            parse(self.where)
        for name in self.keep or ():
            if list(self.keep or ()).count(name) > 1:
                raise UsageError(f"the column {name!r} is kept twice", code="keep-repeated", path="keep")


def check_rejects(place: str | Path | None) -> None:
    """Refuse ``-`` as the place of rejects (``rejects-stream``)."""
    if str(place) == "-":
        message = "rejects are not written to standard output"
        raise UsageError(message, code="rejects-stream", path="--on-error", hint="Name a file for them.")


def elsewhere(options: Options) -> Options:
    """Return the options for another process, which has one core, shows nothing and is asked nothing."""
    return replace(options, engine=None, workers=None, jobs=1, progress=False, check=_go_on, stdout=None)


def with_engine(options: Options, engine: Any) -> Options:
    """Return the same options with this engine (:class:`modelpack_server.batch.spread.Engine`)."""
    return replace(options, engine=engine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a batch run did: ``rows`` scored and written, ``rejected`` written aside.

    ``already``: the same run was done before, so nothing was to do. ``resumed``: how many files were finished before.
    """

    rows: int
    rejected: int
    files: int
    seconds: float
    package: str
    outputs: Sequence[str]
    rejects: str | None = None
    already: bool = False
    resumed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON data."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            "files": self.files,
            "seconds": round(self.seconds, 3),
            "package": self.package,
            "outputs": list(self.outputs),
            **({"rejects": self.rejects} if self.rejects else {}),
            **({"already": True} if self.already else {}),
            **({"resumed": self.resumed} if self.resumed else {}),
        }
