"""The plan of a run: which input files make which output file. It is made before the model is loaded."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from modelpack.errors import UsageError
from modelpack_server.batch import destination, formats, inputs, pieces
from modelpack_server.batch.destination import Destination
from modelpack_server.batch.formats import Kind
from modelpack_server.batch.inputs import Source
from modelpack_server.batch.options import Options
from modelpack_server.delta.history import is_table
from modelpack_server.delta.storage import Root, root_of
from modelpack_server.delta.tables import require
from modelpack_server.remote import RemoteFile, is_remote
from modelpack_server.wholefile import exists

__all__ = ["STDOUT", "Part", "Plan", "make"]

STDOUT = "-"
_PART_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One output file and the inputs it is made from; the unit in which a run goes on, and that an engine makes."""

    stem: str
    kind: Kind
    sources: Sequence[Source]

    @property
    def name(self) -> str:
        """The path of the file in the folder that it is written to."""
        return f"{self.stem}{self.kind.suffix}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All parts, and where they go: ``path`` is a file, a directory (``folder``), a Delta table, or None for stdout.

    ``remote``: the file, folder or table is behind a URL, and ``path`` is None.
    """

    parts: Sequence[Part]
    path: Path | None
    folder: bool = False
    table: bool = False
    remote: RemoteFile | None = None

    @property
    def sources(self) -> list[Source]:
        """All inputs in order."""
        return [source for part in self.parts for source in part.sources]

    @property
    def files(self) -> int:
        """How many files the inputs are, whatever pieces they were cut into."""
        return len({source.name for source in self.sources})

    @property
    def outputs(self) -> list[str]:
        """The names of the files that will be there."""
        if self.remote is not None:
            return [self.remote.child(part.name).url for part in self.parts] if self.folder else [self.remote.url]
        if self.path is None:
            return [STDOUT]
        if not self.folder:
            return [str(self.path)]
        return [str(self.path / part.name) for part in self.parts]

    @property
    def root(self) -> Root:
        """Where the output is, by its path or its URL; not of a stream."""
        found = self.path if self.remote is None else self.remote.url
        assert found is not None
        return found

    def asides(self, rejects: Path | None) -> Path:
        """Return where the rows that a table's files refuse are kept until they have their own file.

        It is beside the data files, or beside that file if these have no path.
        """
        if self.path is not None:
            return self.path
        if rejects is None or destination.is_stream(rejects):
            return Path(tempfile.gettempdir())
        return rejects.absolute().parent

    def open(self, options: Options) -> AbstractContextManager[Destination]:
        """Open the destination, which is a file or a stream."""
        if self.remote is not None:
            return destination.remote(self.remote, overwrite=options.overwrite)
        if self.path is None or destination.is_stream(self.path):
            return destination.stream(self.path, options.stdout)
        return destination.file(self.path, overwrite=options.overwrite)


def make(given: Sequence[str | Path], output: str | Path, options: Options) -> Plan:
    """Return the plan for scoring ``given`` into ``output``.

    ``-`` is standard output. A name that ends in ``/``, and a directory that exists, get one file for each input,
    with its name and (unless an output format is given) its format, and a large Parquet file one for each of its
    pieces. With the format "delta" it is a Delta table. Any other name is one file with all the rows.

    Raises:
        UsageError: nothing to read, a format that cannot be told, an output that exists or is an input.
    """
    sources = inputs.find(given, options.input_format, options.when, options.where)
    text, path = str(output), Path(output)
    if text == STDOUT:
        plan = Plan(
            parts=[Part(stem="", kind=Kind(format=options.output_format or "jsonl"), sources=sources)], path=None
        )
    elif options.output_format == "delta":
        plan = _table(pieces.cut(sources), root_of(text))
    elif is_remote(text):
        plan = _remote(text, sources, options)
    elif text.endswith(os.sep) or path.is_dir():
        plan = Plan(parts=_one_each(sources, options), path=path, folder=True)
    else:
        plan = Plan(parts=[Part(stem="", kind=_kind(path, options), sources=sources)], path=path)
    _check_table(plan, options)
    _check_alone(plan, options)
    _check(plan, options)
    return plan


def _table(sources: Sequence[Source], root: Root) -> Plan:
    parts = _grouped(sources)
    if isinstance(root, Path):
        return Plan(parts=parts, path=root, table=True)
    if any(f"{source.name}/".startswith(f"{root}/") for source in sources):
        raise UsageError(f"{root} is an input too", code="output-is-input", hint="Choose another output.")
    return Plan(parts=parts, path=None, table=True, remote=RemoteFile(url=root))


def _remote(url: str, sources: Sequence[Source], options: Options) -> Plan:
    target = RemoteFile(url=url)
    if not url.endswith("/"):
        if any(source.name == url for source in sources):
            raise UsageError(f"{url} is an input too", code="output-is-input", hint="Choose another output.")
        if not options.overwrite and target.exists():
            raise exists(url)
        part = Part(stem="", kind=_kind(PurePosixPath(url), options), sources=sources)
        return Plan(parts=[part], path=None, remote=target)
    if any(source.name.startswith(url) for source in sources):
        raise UsageError(f"{url} holds an input", code="output-is-input", hint="Choose another output.")
    if options.on_error is not None or options.overwrite or options.engine is not None:
        what = "Rejects" if options.on_error is not None else "Overwriting" if options.overwrite else "An engine"
        message = f"{what} and a folder behind a URL do not go together"
        raise UsageError(message, code="output-remote", hint="Write one file, or to a local folder.")
    return Plan(parts=_one_each(sources, options), path=None, folder=True, remote=target)


def _kind(path: PurePath, options: Options) -> Kind:
    kind = formats.of(path, options.output_format)
    if kind is None and isinstance(path, Path) and destination.is_stream(path):
        kind = Kind(format="jsonl")
    if kind is None:
        raise UsageError(
            f"the name of {path} does not tell the output's format",
            code="output-format",
            hint=f"Pass --output-format ({', '.join(formats.FORMATS)}), or end the name of a directory with '/'.",
        )
    return kind


def _grouped(sources: Sequence[Source]) -> list[Part]:
    """Return parts of one input each, but of several small ones together: tables are slow with many small files."""
    groups: list[list[Source]] = []
    size = _PART_BYTES
    for source in sources:
        if size >= _PART_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(source)
        size += source.size or 0
    return [Part(stem=f"{number:05d}", kind=Kind(format="delta"), sources=group) for number, group in enumerate(groups)]


def _one_each(sources: Sequence[Source], options: Options) -> list[Part]:
    parts: dict[str, Part] = {}
    for source in pieces.cut(sources):
        wanted = options.output_format or ("parquet" if source.table else source.kind.format)
        kind = source.kind if wanted == source.kind.format else Kind(format=wanted)
        name = f"{source.stem}{kind.suffix}"
        if any(step.startswith((".", "_")) for step in PurePosixPath(name).parts):
            raise UsageError(
                f"{source.name} would be written to {name}, which whoever reads the directory takes for no data",
                code="output-hidden",
                hint="Give the input a name that does not begin with '.' or '_', or write one file.",
            )
        if name in parts:
            raise UsageError(
                f"{parts[name].sources[0].name} and {source.name} would both be written to {name}",
                code="output-clash",
                hint="Score them in separate runs, or into one file.",
            )
        parts[name] = Part(stem=source.stem, kind=kind, sources=[source])
    return list(parts.values())


def _check_table(plan: Plan, options: Options) -> None:
    if plan.table:
        require()  # now, not when all is scored
        return
    if options.output_format == "delta":
        raise UsageError("a Delta table cannot be standard output", code="output-format", hint="Name a directory.")
    if options.mode != "append" or options.job is not None:
        raise UsageError("a mode and a job are for Delta tables", code="option-alone", hint="--output-format delta")
    if plan.path is not None and is_table(plan.path):
        message = f"{plan.path} is a Delta table"
        raise UsageError(message, code="output-exists", hint="To add to it, pass --output-format delta.")


def _check_alone(plan: Plan, options: Options) -> None:
    """Refuse what would do nothing."""
    if options.restart and not plan.folder:
        message = "only runs into a directory can be told to begin anew"
        raise UsageError(message, code="option-alone", path="--restart", hint="Leave it out.")
    streamed = plan.path is None and plan.remote is None
    if options.workers is not None and not (plan.table or (plan.folder and plan.path is not None)):
        message = "several processes make the files of a local directory or of a Delta table"
        hint = "End OUT with '/', or pass --output-format delta."
        raise UsageError(message, code="option-alone", path="--workers", hint=hint)
    if options.workers is not None and any(source.size is None for source in plan.sources):
        message = "what comes through a pipe is scored in one process"
        raise UsageError(message, code="option-alone", path="--workers", hint="Leave it out.")
    if options.overwrite and options.on_error is None and (plan.table or streamed):
        message = "replaces files, and neither rows of a Delta table nor standard output"
        hint = "To replace its rows, pass --mode overwrite." if plan.table else "Leave out --overwrite."
        raise UsageError(message, code="option-alone", path="--overwrite", hint=hint)


def _check(plan: Plan, options: Options) -> None:
    if options.on_error is not None and re.match(r"[A-Za-z0-9+.-]+:/", str(options.on_error)):
        message = f"{options.on_error} is not on a local file system"
        raise UsageError(message, code="output-remote", hint="Write the rejects to a local file.")
    targets = [path for path in (plan.path, options.on_error) if path is not None]
    if len(targets) == 2 and _same(*targets):
        raise UsageError(f"{targets[0]} cannot be both output and rejects", code="output-clash")
    if plan.folder and len(targets) == 2 and targets[0].resolve() in targets[1].resolve().parents:
        message = f"{targets[1]} is inside of the output, which appears as a whole"
        raise UsageError(message, code="output-clash", hint="Write the rejects to another place.")
    for target in targets:
        if destination.is_stream(target):
            continue
        for source in plan.sources:
            if source.path is not None and (_same(source.path, target) or _holds(target, source.path)):
                raise UsageError(f"{target} is an input too", code="output-is-input", hint="Choose another output.")
        if not (plan.table and target == plan.path) and not _may_be_ours(plan, options):
            destination.refuse_existing(target, overwrite=options.overwrite)
    if options.on_error is not None and options.on_error.is_dir():
        raise UsageError(
            f"{options.on_error} is a directory", code="rejects-directory", hint="Give a file for rejects."
        )


def _may_be_ours(plan: Plan, options: Options) -> bool:
    """Say whether what is there may be from this very run, which the run itself finds out."""
    if plan.table:
        return any(plan.asides(options.on_error).glob(".modelpack-*.rejects"))
    if plan.path is None or not plan.folder:
        return False
    return (plan.path / destination.MANIFEST).is_file() or destination.place_of(plan.path).exists()


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _holds(folder: Path, path: Path) -> bool:
    return folder.is_dir() and folder.resolve() in path.resolve().parents
