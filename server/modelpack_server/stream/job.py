"""The loop: look what was added, score it, commit the answers together with the position reached."""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelpack import coerce
from modelpack.errors import InputError, SaveError, UsageError
from modelpack.model import Model
from modelpack.signature import Table
from modelpack_server.batch.assemble import Assembler
from modelpack_server.batch.chunks import Chunk, Wanted
from modelpack_server.batch.feed import wanted
from modelpack_server.batch.options import Options as BatchOptions
from modelpack_server.batch.rejects import Refusal, Stop
from modelpack_server.batch.scoring import Scored, Scorer
from modelpack_server.codecs import answers
from modelpack_server.delta import position
from modelpack_server.delta.commit import Conflict, Target, check_replaceable, fit
from modelpack_server.delta.kinds import storable
from modelpack_server.delta.parts import Part
from modelpack_server.delta.position import UNSEALED, Mark, Position, fingerprint
from modelpack_server.delta.storage import Root, root_of, same
from modelpack_server.stream import columns, metrics
from modelpack_server.stream.aside import Aside
from modelpack_server.stream.follow import Follower, Piece, Work
from modelpack_server.stream.options import Options, Summary, Waiter
from modelpack_server.stream.spread import PieceWork, chunks
from modelpack_server.stream.status import Status, status
from modelpack_server.stream.upsert import Keyed, check_key, key_mark, same_key

__all__ = ["run"]

# So many commits in a row that lose are no accident.
MAX_CONFLICTS = 50


def run(model: Model, source: str | Path, output: str | Path, options: Options, waiter: Waiter) -> Summary:
    """Score a Delta table into another one as it grows, until ``waiter`` says stop; each row once.

    Raises:
        UsageError: a table that is not there or cannot be written, an option that does not fit.
        InputError: rows that do not fit, or a source that is not what it was.
        ModelError: the model raised, with file and rows.
    """
    stream = _Stream(model, root_of(source), root_of(output), options)

    def look() -> Status:
        # A stream that is about to stop is not down yet.
        changes = "append" if options.changes == "fail" else options.changes
        return status(model.digest, source, output, replace(options, changes=changes, say=lambda _: None))

    with metrics.served(options.metrics, stream.summary, look):
        return stream.run(waiter)


class _Stream:
    def __init__(self, model: Model, source: Root, output: Root, options: Options) -> None:
        self._model = model
        self._options = options
        self._refuse_loop(source, output)
        self._target = Target(output, family="stream")
        self._table = self._target.open()
        self._aside: Aside | None = None
        if options.on_error is not None:
            target = Target(root_of(options.on_error), family="rejects")
            self._aside = Aside(target, options.job, options.max_rejects)
        self._refused = self._aside or Stop("TABLE")
        self._values = coerce.params(options.params, model.signature)
        self._scorer = Scorer(model, self._values, keep=options.keep, refused=self._refused)
        self._package = fingerprint(model.digest)
        self._key = key_mark(options.key)
        self._begun = False
        self._follower = Follower(source, options)
        self._start = self._reached()
        self._wanted = self._columns()
        self._follower.narrow({*(self._wanted.inputs or ()), *(self._wanted.keep or ())})
        self._follower.needed = self._wanted.pick(self._follower.shape.schema.names)
        self._keyed: Keyed | None = None
        if options.key is not None:
            if self._table is not None:
                check_replaceable(self._table, output)
            names = self._follower.shape.schema.names
            check_key(options.key, self._follower.shape.schema, self._wanted.kept(names), source)
            self._keyed = Keyed(options.key, source, self._target, self._refused)
        self.summary = Summary(package=model.digest)

    def run(self, waiter: Waiter) -> Summary:
        """Go on until there is a reason to stop."""
        started = time.perf_counter()
        reached = self._start
        conflicts = 0
        while not waiter.asked:
            work = self._follower.gather(reached)
            if work.end == reached:
                if self._options.once:
                    break
                waiter.wait(self._options.interval)
                continue
            try:
                reached = self._round(reached, work)
                conflicts = 0
            except Conflict:
                conflicts += 1
                reached = self._lost(conflicts)
                waiter.wait(random.uniform(0, 0.1 * conflicts))  # noqa: S311 - so that two do not keep in step
        self.summary.version = reached.version - 1
        self.summary.seconds = time.perf_counter() - started
        return self.summary

    def _refuse_loop(self, source: Root, output: Root) -> None:
        places = [output, *([root_of(self._options.on_error)] if self._options.on_error else [])]
        if any(same(source, place) for place in places):
            raise UsageError(f"{source} is the source too", code="output-is-input", hint="Choose another output.")
        if len(places) > 1 and same(*places):
            raise UsageError(f"{output} cannot be both output and rejects", code="output-clash")

    def _columns(self) -> Wanted:
        """Return the columns to read: with ``keep`` unsaid those that the output has, if there is one."""
        have = self._follower.shape.schema.names
        now = tuple(name for name in have if name not in self._follower.gone)
        keep = self._options.keep
        if keep is None and self._table is not None:
            keep = columns.kept(have, self._table_schema().names, self._model.signature.outputs)
        for name in keep or ():
            if name not in have:
                raise InputError(f"has no column {name!r} to keep", code="keep-missing", path=str(self._follower.root))
        inputs = self._model.signature.inputs
        for column in inputs.columns if isinstance(inputs, Table) else ():
            if column.name not in have and not column.optional:
                message = f"has no column {column.name!r}, which the model needs"
                raise InputError(message, code="column-missing", path=str(self._follower.root))
        found = wanted(self._model.signature, BatchOptions(keep=self._options.keep))
        return Wanted(inputs=found.inputs, keep=keep if keep is not None else now, whole=found.whole)

    def _table_schema(self) -> pa.Schema:
        assert self._table is not None
        return pa.schema(self._table.schema().to_arrow())

    def _mark(self) -> Mark | None:
        """Return the mark in the snapshot of the output that we hold; None if this stream is new.

        Raises:
            InputError: the mark is that of another source (``source-replaced``), or it was there and is no more
                (``output-replaced``).
            UsageError: the mark is that of another package (``package-changed``), or of another key (``key-changed``);
                another job's rows are in the way (``output-keyed``).
        """
        self._shared()
        mark = position.read(self._where, self._options.job)
        if mark is None:
            if self._begun:
                message = "was removed, or another table was put in its place, while the stream ran"
                hint = "Start the stream again: it begins anew there."
                raise InputError(message, code="output-replaced", path=str(self._target.root), hint=hint)
            return None
        self._begun = True
        self._follower.belongs(mark.source, self._target.root)
        if mark.package != self._package and not self._options.new_package:
            raise UsageError(
                f"{self._target.root} was made with another package so far",
                code="package-changed",
                hint="With --new-package the stream goes on with this one; or give another output or --job.",
            )
        same_key(mark.key, self._key, self._target.root)
        return mark

    def _where(self, application: str) -> int | None:
        """Return where an application is in the snapshot of the output that we hold."""
        return None if self._table is None else self._target.moved(self._table, application)

    def _shared(self) -> Mapping[str, int]:
        return position.shared(self._where, self._options.job, keyed=self._key is not None)

    def _moved(self, mark: Mark) -> Mapping[str, int]:
        """Return the transactions of a commit to the snapshot of the output that we hold."""
        return {**position.written(self._options.job, mark), **self._shared()}

    def _reached(self) -> Position:
        """Return the position in the snapshot of the output that we hold, or where a new stream begins."""
        mark = self._mark()
        place = self._follower.first() if mark is None else mark.position
        self._follower.check(place, UNSEALED if mark is None else mark.seal)
        return place

    def _lost(self, conflicts: int) -> Position:
        """Start over from what another process has committed."""
        self.summary.conflicts += 1
        if conflicts == 1:
            self._options.say(
                f"another process works on the job {self._options.job!r} in {self._target.root}; "
                f"going on behind what it has committed"
            )
        if conflicts > MAX_CONFLICTS:
            raise SaveError(
                f"{self._target.root}: {conflicts} commits in a row were refused because of others",
                code="output-contended",
                hint="Stop the other writers, or let each have its own --job.",
            )
        self._table = self._target.open()
        return self._reached()

    def _round(self, reached: Position, work: Work) -> Position:
        """Score and commit; return the position then.

        The snapshot that tells the position is the one that the commit is made from.
        """
        started = time.perf_counter()
        self._table = self._target.refresh(self._table)
        before = self._mark()
        if before is not None and before.position != reached:
            return self._reached()  # somebody else was here: gather again
        if self._aside is not None:
            self._aside.begin()
        if self._keyed is not None:
            self._keyed.begin()
        mark = self._at(work.end)
        facts = {"job": self._options.job, "package": self._model.digest, "source": self._follower.shape.id,
                 "from": [reached.version, reached.index], "to": [work.end.version, work.end.index]}  # fmt: skip
        parts, count = self._write(work.pieces)
        if self._table is None:
            return self._nothing(work)
        if self._aside is not None:
            try:
                if before is None:
                    self._settle(reached, facts)
                self.summary.rejected += self._aside.commit(self._table.metadata().id, mark, facts)
            except BaseException:
                self._target.withdraw(parts)
                raise
        gone, moved = 0, self._moved(mark)
        if self._keyed is None:
            self._target.commit(self._table, parts, moved, facts)
        else:
            gone = self._keyed.commit(self._table, parts, moved, facts)
        self._begun = True
        self.summary.rows += count
        self.summary.deleted += gone
        self.summary.commits += 1
        if count or gone:
            seconds = time.perf_counter() - started
            words = ("1 row" if count == 1 else f"{count:,} rows") + (f", {gone:,} gone" if gone else "")
            self._options.say(f"version {work.pieces[-1].place.version}: {words} in {seconds:.2f} s")
        return work.end

    def _at(self, place: Position) -> Mark:
        return Mark(position=place, source=self._follower.fingerprint, package=self._package, key=self._key,
                    seal=self._follower.seal(place))  # fmt: skip

    def _settle(self, reached: Position, facts: Mapping[str, Any]) -> None:
        """Commit where a new stream begins, before its first rejects.

        Their places count from there; a stream that is killed behind its rejects must not begin elsewhere.
        """
        self._target.commit(self._table, [], self._moved(self._at(reached)), facts)
        self._table = self._target.refresh(self._table)
        if self._reached() != reached:
            raise Conflict("another process has gone on already")

    def _nothing(self, work: Work) -> Position:
        """Go on without a commit: there was no row, and the columns of the output are not known yet."""
        if self._aside is not None and self._aside.pending:
            raise InputError(
                "no row fits so far, so the columns of the output are not known",
                code="output-unknown",
                path=str(self._follower.root),
                hint="Create the output table, or package the model with the signature of its outputs.",
            )
        return work.end

    def _write(self, pieces: Sequence[Piece]) -> tuple[Sequence[Part], int]:
        """Score the files into one new file of the output; without any row there is none."""
        if self._options.engine is not None and self._table is not None:
            return self._spread(pieces)
        assembler = Assembler("delta", self._wanted)
        with contextlib.ExitStack() as stack:
            part: Part | None = None
            for scored in self._scored(pieces):
                self._refused.take(scored.chunk, scored.faults)
                table = None
                if scored.frame.rows:
                    table = assembler.add(scored.chunk, scored.frame, scored.answers, scored.rows)
                if self._keyed is not None:
                    self._keyed.came(scored, table)
                if table is None:
                    continue
                self._ensure(table)
                part = part or stack.enter_context(self._target.part())
                part.write(fit(table, self._table_schema(), self._target.root))
            if part is None:
                self._ensure(self._empty())
        return ([part], part.rows) if part is not None else ((), 0)

    def _ensure(self, table: pa.Table) -> None:
        if self._table is None and table.num_columns:
            self._table = self._target.create(storable(table))
            if position.read(self._where, self._options.job) is not None:
                raise Conflict("another process has begun this stream already")

    def _empty(self) -> pa.Table:
        """Return the output's columns without a row, as far as they are known; else none at all."""
        found = answers.empty(self._model.signature.outputs)
        if not found.num_columns:
            return found
        schema = self._follower.shape.schema
        kept = pa.schema([schema.field(name) for name in self._wanted.kept(schema.names)]).empty_table()
        renamed = answers.rename(found, kept.column_names, same=str.lower)
        return pa.table([*kept.columns, *renamed.columns], names=[*kept.column_names, *renamed.column_names])

    def _scored(self, pieces: Sequence[Piece]) -> Iterator[Scored]:
        for piece in pieces:
            if self._aside is not None:
                self._aside.at(piece.place)
            if self._keyed is None:
                yield from map(self._scorer, self._chunks(piece, self._wanted))
                continue
            self._keyed.at(piece.place)
            if piece.add.old:
                for chunk in self._chunks(piece, Wanted(inputs=(), keep=self._keyed.key)):
                    self._keyed.gone(chunk.data)
            else:
                yield from map(self._scorer, map(self._keyed.told, self._chunks(piece, self._wanted)))

    def _chunks(self, piece: Piece, wanted: Wanted) -> Iterator[Chunk]:
        def gone(exc: Exception) -> None:
            self._gap(piece, exc)

        size = self._options.batch_size
        return chunks(self._follower.root, self._follower.shape, piece, wanted, size, gone)

    def _gap(self, piece: Piece, exc: Exception | None) -> None:
        """Go on without a file of the source that is gone, or raise the error that says so."""
        error = self._follower.missing(piece.add)
        if self._options.on_gap == "fail":
            raise error from exc
        self._options.say(f"{error.path}: {error.message}; skipped")

    def _spread(self, pieces: Sequence[Piece]) -> tuple[Sequence[Part], int]:
        """Have an engine score the files, each into one of the output."""
        options, root = self._options, self._target.root
        work = PieceWork(root=self._follower.root, shape=self._follower.shape, wanted=self._wanted, keep=options.keep,
                         params=self._values, size=options.batch_size, output=root,
                         schema=self._table_schema(), aside=self._aside is not None,
                         limit=options.max_rejects)  # fmt: skip
        unique = uuid.uuid4()
        items = [(f"part-{i:05d}-{unique}-c000.snappy.parquet", piece) for i, piece in enumerate(pieces)]
        parts: list[Part] = []
        refused: dict[str, Sequence[Refusal]] = {}
        try:
            with contextlib.closing(options.engine.each(self._model, work, items)) as finished:
                for (name, piece), done in finished:
                    refused[name] = done.refused
                    if done.rows is None:
                        self._gap(piece, None)
                    elif done.rows:
                        parts.append(self._target.existing(name))
            for name, piece in items:
                if self._aside is not None:
                    self._aside.add(piece.place, refused[name])
        except BaseException:
            for name, _ in items:
                self._target.files.remove(name)
            raise
        return parts, sum(part.rows for part in parts)
