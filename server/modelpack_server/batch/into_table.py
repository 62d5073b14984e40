"""A batch run into a Delta table: data files that nobody sees until one commit lists them all, once for each job.

The names of the files come from the job, so that a run that was killed finds those it has made, and goes on.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from modelpack.errors import InputError, ModelpackError, SaveError, UsageError
from modelpack.model import Model
from modelpack_server.batch import destination, progress, record, rejects
from modelpack_server.batch.making import Maker
from modelpack_server.batch.options import Options, Summary, elsewhere
from modelpack_server.batch.plan import Part, Plan
from modelpack_server.batch.record import Record
from modelpack_server.batch.spread import TableWork
from modelpack_server.delta import fate
from modelpack_server.delta.commit import Conflict, Target, check_replaceable, fit
from modelpack_server.delta.kinds import storable
from modelpack_server.delta.parts import Part as DataFile
from modelpack_server.delta.position import fingerprint
from modelpack_server.remote import UNREACHABLE
from modelpack_server.wholefile import whole_file

__all__ = ["into_table"]

# There are files before there is a table: their names say that they are ours, and may be left by any job.
_OWN = "-modelpack."


def into_table(model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> Summary:
    """Carry out a plan whose output is a Delta table."""
    started = time.perf_counter()
    load = _Load(plan, record.describe(model, plan, params, options), options)
    rows = rejected = 0
    done = load.begin(load.target.open())
    if not done:
        load.check(len(plan.parts))
        try:
            with load.files(), progress.start(plan.sources, show=options.progress) as shown:
                maker = Maker(model, params, options, shown)
                if options.engine is not None:
                    load.spread(model, plan, params, options)
                parts = [load.make(number, part, maker) for number, part in enumerate(plan.parts)]
                rows, rejected = sum(part.rows for part in parts), load.place_rejects()
                done = not load.commit(parts, rows=rows, rejected=rejected)
        except _Already:
            done = True
    load.tidy()
    return Summary(
        rows=0 if done else rows,
        rejected=0 if done else rejected,
        files=plan.files,
        seconds=time.perf_counter() - started,
        package=model.digest,
        outputs=plan.outputs,
        rejects=str(options.on_error) if options.on_error and not done else None,
        already=done,
    )


class _Already(Exception):
    """Another run of the same job has committed it meanwhile."""


class _Load:
    """One job: what it is, its table, and its files."""

    def __init__(self, plan: Plan, run: Record, options: Options) -> None:
        whole = record.digest({**run, "mode": options.mode})
        self._run = run
        self._mode = options.mode
        self._on_error = options.on_error
        self._limit = options.max_rejects
        self._overwrite = options.overwrite
        self._rejected: dict[int, int] = {}
        self._named = options.job is not None
        self._name = options.job or whole[:32]
        self._mark = fingerprint(whole)
        self._whole = whole
        self._times = 0
        self._schema: pa.Schema | None = None
        self.target = Target(plan.root, family="predict", own=_OWN)
        self._asides = plan.asides(options.on_error)

    @property
    def _unique(self) -> str:
        # Each time the job is done again its files are others: those of the last time may be vacuumed at any moment.
        again = f" {self._times}" if self._times else ""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._whole} {self._name}{again}"))

    @property
    def _end(self) -> str:
        # Files that were made with rejects lack rows that end a run without them.
        return f"{self._unique}-c00{int(self._on_error is not None)}{_OWN}snappy.parquet"

    def begin(self, table: Any | None) -> bool:
        """Say whether there is nothing to do, and else for how many times the job was done before."""
        done = self.done(table)
        self._times = self._before(table) - done
        return done

    def _before(self, table: Any | None) -> int:
        return 0 if table is None else self.target.moved(table, self._id) or 0

    def done(self, table: Any | None) -> bool:
        """Say whether the job was committed before, and its rows were not replaced since by others.

        What somebody has deleted since is not added again. A job that replaces the table is done again if any row went.

        Raises:
            UsageError: another one of that name was (``job-changed``).
        """
        if table is None:
            return False
        if self._mode == "overwrite":
            check_replaceable(table, self.target.root)
        self._schema = pa.schema(table.schema().to_arrow())
        if self.target.moved(table, self._id) is None:
            return False
        if self.target.moved(table, f"{self._id}/inputs") != self._mark:
            message = f"{self.target.root} has a job {self._name!r}, of other inputs, params or another package"
            raise UsageError(message, code="job-changed", hint="Give this one another name (--job).")
        if self._mode == "overwrite":
            return fate.is_untouched(table, self.target.root, self._id)
        return not fate.is_replaced(table, self.target.root, self._id)

    @property
    def _id(self) -> str:
        return f"modelpack/predict/{self._name}"

    @contextmanager
    def files(self) -> Iterator[None]:
        """Remove the files of this job at an error which means that the input, and so the job, has to change.

        What another run of the same job has committed stays: then this one has nothing to complain of.

        Raises:
            _Already: there was an error, and the job was committed meanwhile.
        """
        fresh = not self.target.files.made()
        try:
            yield
        except ModelpackError as exc:
            if self._is_committed():
                raise _Already from exc
            if isinstance(exc, InputError | UsageError) and exc.code != UNREACHABLE:
                self._forget(fresh)
            raise

    def _is_committed(self) -> bool:
        with contextlib.suppress(ModelpackError):
            return self.done(self.target.open())
        return False

    def _forget(self, fresh: bool) -> None:
        if not self.target.files.made():
            return
        with self.target.files.alone() as alone:
            if alone:  # else another run of the same job may be about to commit them
                self.target.discard(fnmatch.filter(self.target.files.names(), f"part-*-{self._end}"))
            self.tidy()
        if fresh:
            self.target.files.unmake()

    def check(self, parts: int) -> None:
        """Refuse a file of rejects that is there, unless it may be that of this run, which was killed behind it."""
        if self._on_error is None or destination.is_stream(self._on_error):
            return
        if not all(self._is_there(number) for number in range(parts)):
            destination.refuse_existing(self._on_error, overwrite=self._overwrite)

    def _file(self, number: int) -> str:
        return f"part-{number:05d}-{self._end}"

    def _is_there(self, number: int) -> bool:
        return self.target.files.look(self._file(number)) is not None

    def _aside(self, number: int) -> Path:
        """Return where the rows are that a part refuses, until all of them are in one file."""
        return self._asides / f".modelpack-{self._unique}-{number:05d}.rejects"

    def make(self, number: int, part: Part, maker: Maker) -> DataFile:
        """Return the data file of a part: the one that an earlier run has made, or a new one."""
        name, aside = self._file(number), self._aside(number)
        before = sum(count for other, count in self._rejected.items() if other != number)
        there = self._is_there(number)
        if self._on_error is not None and there and not aside.exists():
            # Whoever took the rejects away has committed the job, or had to give up; or they are on another machine.
            if self._is_committed():
                raise _Already
            there = False  # the data file stays as it is, and the rejects are made once more
        if not there:
            try:
                with contextlib.ExitStack() as stack:
                    file = stack.enter_context(self.target.part(name))
                    bad = None
                    if self._on_error is not None:
                        # It gets its name before the data file, which is looked for.
                        whole = whole_file(aside, overwrite=True, family=f"aside-{self._unique}")
                        bad = stack.enter_context(whole)
                    maker.make(part, _Fitted(self, file), rejects.taken(bad, self._limit, count=before))
                    record.unchanged(part.sources, self._run)
            except UsageError:
                # The same job, run at the same time, was faster.
                if not self._is_there(number):
                    raise
        try:
            made = self.target.existing(name)
        except FileNotFoundError as exc:
            raise self._contended("another run of the same job has removed its files") from exc
        if self._schema is None:
            self._schema = storable(made.schema.remove_metadata().empty_table())
        if self._on_error is not None:
            self._rejected[number] = rejects.within(self._limit, before, aside)
        return made

    def place_rejects(self) -> int:
        """Give the rejects of all parts their place, if there is one; return how many they are."""
        if self._on_error is not None:
            asides = [self._aside(number) for number in sorted(self._rejected)]
            rejects.gather(self._on_error, asides, overwrite=self._overwrite)
        return sum(self._rejected.values())

    def tidy(self) -> None:
        """Remove the files of rejects that stand beside the data files."""
        for path in self._asides.glob(f".modelpack-{self._unique}-*.rejects"):
            path.unlink(missing_ok=True)

    def spread(self, model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> None:
        """Have an engine make the files, where :meth:`make` finds them; the first one alone, as it tells the types."""
        items = list(enumerate(plan.parts))
        for some in (items[:1], items[1:]) if self._schema is None else (items,):
            load = copy.copy(self)
            load._rejected = {}  # all of them together are counted here
            work = TableWork(load=load, params=params, options=elsewhere(options))
            # Closed at an error of ours too, so that nobody writes any more where files are removed.
            with contextlib.closing(options.engine.each(model, work, some)) as made:
                for (number, part), _ in made:
                    self.make(number, part, Maker(model, params, options, progress.Silent()))

    def fitted(self, rows: pa.Table) -> pa.Table:
        """Return rows with the columns and types of the table, or of the first rows where it is still to be made."""
        if self._schema is None:
            self._schema = storable(rows)
        return fit(rows, self._schema, self.target.root)

    def commit(self, parts: list[DataFile], *, rows: int, rejected: int) -> bool:
        """Add the files to the table, unless the job was committed meanwhile; say whether it was done here."""
        transactions = {self._id: self._times + 1, f"{self._id}/inputs": self._mark}
        facts = {"package": self._run["package"], "rows": rows, "rejected": rejected}
        for _ in range(3):
            with self.target.files.alone():
                table = self.target.open()
                if self.done(table):
                    return False
                if self._before(table) != self._times:
                    raise self._contended("another run of the same job was replaced meanwhile")
                if not all(self._is_there(number) for number in range(len(parts))):
                    raise self._contended("another run of the same job has removed its files")
                try:
                    if table is None:
                        assert self._schema is not None
                        self.target.found(self._schema, parts, transactions, facts)
                    else:
                        self.target.commit(table, parts, transactions, facts, mode=self._mode, keep=True)
                except Conflict as exc:
                    reason = str(exc)
                    continue
                return True
        raise self._contended(f"others changed it at the same time ({reason})")

    def _contended(self, reason: str) -> SaveError:
        message = f"{self.target.root} cannot be written: {reason}"
        return SaveError(message, code="output-contended", hint="Run again.")


class _Fitted:
    """Writes rows into a data file as the table wants them."""

    def __init__(self, load: _Load, file: DataFile) -> None:
        self._load = load
        self._file = file

    def write(self, rows: Any) -> None:
        """Append the rows of a table."""
        self._file.write(self._load.fitted(rows))

    def close(self) -> None:
        """The file closes itself."""

    def abandon(self) -> None:
        """The file closes itself."""
