"""A batch run into a folder: a file for each part, which a run that was killed does not make again.

The folder appears with all of its files, a manifest of what was scored, and ``_SUCCESS``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from modelpack import atomic
from modelpack.errors import InputError
from modelpack.model import Model
from modelpack_server.batch import destination, progress, record, rejects, writers
from modelpack_server.batch.making import Maker
from modelpack_server.batch.options import Options, Summary, elsewhere
from modelpack_server.batch.plan import Part, Plan
from modelpack_server.batch.progress import Progress
from modelpack_server.batch.record import Record
from modelpack_server.batch.resume import State
from modelpack_server.batch.spread import FolderWork
from modelpack_server.remote import UNREACHABLE
from modelpack_server.wholefile import exists, translated

__all__ = ["into_folder"]


def into_folder(model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> Summary:
    """Carry out a plan whose output is a folder."""
    started = time.perf_counter()
    run = record.describe(model, plan, params, options)
    folder = _Folder(plan, run, options)
    with translated(str(folder.target)), _state(folder.target) as state:
        if already := folder.done():
            state.discard()
        else:
            state.begin(run, restart=options.restart)
            folder.check(state)
            resumed = folder.fill(state, model, params)
            folder.appear(state, model)
        lines = [] if already else [line for name, line in state.finished.items() if name]
        state.discard()
    return Summary(
        rows=sum(line["rows"] for line in lines),
        rejected=sum(line["rejected"] for line in lines),
        files=plan.files,
        seconds=time.perf_counter() - started,
        package=model.digest,
        outputs=plan.outputs,
        rejects=str(options.on_error) if options.on_error and not already else None,
        already=already,
        resumed=0 if already else resumed,
    )


@contextmanager
def _state(target: Path) -> Iterator[State]:
    """Yield the state; it goes with errors that mean another input or another command, and stays with all others."""
    state = State.open(target)
    try:
        yield state
    except InputError as exc:
        if exc.code != UNREACHABLE:
            state.discard()
        raise
    finally:
        state.close()


class _Folder:
    def __init__(self, plan: Plan, run: Record, options: Options) -> None:
        assert plan.path is not None
        self.target = plan.path
        self._plan = plan
        self._run = run
        self._options = options
        self._began = record.now()

    def done(self) -> bool:
        """Say whether the folder is there, of this very run."""
        if self._options.overwrite or not self.target.is_dir() or not any(self.target.iterdir()):
            return False
        manifest = self.target / destination.MANIFEST
        found = None
        if manifest.is_file() and (self.target / destination.SUCCESS).is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found = json.loads(manifest.read_bytes())["run"]
        if found == record.digest(self._run):
            return True
        raise exists(self.target)

    def check(self, state: State) -> None:
        """Refuse a file of rejects that is in the way and is not this run's own."""
        path = self._options.on_error
        if path is not None and not destination.is_stream(path):
            destination.refuse_existing(path, overwrite=self._options.overwrite or state.placed(rejects.digest(path)))

    def fill(self, state: State, model: Model, params: Mapping[str, Any]) -> int:
        """Make the parts that are missing, and return how many are not."""
        options, found = self._options, len(state.finished.keys() - {""})
        if options.engine is not None:
            self._spread(state, model, params)
            return found
        with progress.start(self._plan.sources, show=options.progress) as shown:
            maker = Maker(model, params, options, shown)
            for part in self._plan.parts:
                name = part.name
                if name in state.finished:
                    _skip(part, shown, state.finished[name]["rows"])
                    continue
                began, before = time.perf_counter(), sum(line.get("rejected", 0) for line in state.finished.values())
                with state.part(name) as (file, bad):
                    refused = rejects.taken(bad if options.on_error else None, options.max_rejects, count=before)
                    with writers.writer(part.kind, file) as out:
                        rows = maker.make(part, out, refused)
                    record.unchanged(part.sources, self._run)
                seconds = round(time.perf_counter() - began, 3)
                state.finish(name, rows=rows, rejected=refused.count - before, seconds=seconds)
        return found

    def _spread(self, state: State, model: Model, params: Mapping[str, Any]) -> None:
        """Have an engine make the parts that are missing."""
        missing = [part for part in self._plan.parts if part.name not in state.finished]
        work = FolderWork(root=state.out.parent, run=self._run, params=params, options=elsewhere(self._options))
        before = sum(line.get("rejected", 0) for line in state.finished.values())
        with (
            progress.start(self._plan.sources, show=self._options.progress) as shown,
            # Closed at an error of ours too, so that nobody writes any more where things are removed.
            contextlib.closing(self._options.engine.each(model, work, missing, [state.lock])) as done,
        ):
            for part, (rows, seconds) in done:
                rejected = 0
                if self._options.on_error is not None:
                    rejected = rejects.within(self._options.max_rejects, before, state.rejects(part.name))
                before += rejected
                state.finish(part.name, rows=rows, rejected=rejected, seconds=seconds)
                _skip(part, shown, rows)

    def appear(self, state: State, model: Model) -> None:
        """Give the rejects and then the folder their places."""
        names = [part.name for part in self._plan.parts]
        if self._options.on_error is not None:
            self._place_rejects(state, names)
        manifest = self._manifest(state, model, names)
        (state.out / destination.MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2) + "\n")
        (state.out / destination.SUCCESS).write_bytes(b"")
        atomic.flush(state.out)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        atomic.place(state.out, self.target, destination.is_ours if self._options.overwrite else None)

    def _place_rejects(self, state: State, names: list[str]) -> None:
        path, files = self._options.on_error, [state.rejects(name) for name in names]
        assert path is not None
        ours = self._options.overwrite or state.placed(rejects.digest(path))
        state.finish("", rejects=rejects.digest(*files))
        rejects.gather(path, files, overwrite=ours)

    def _manifest(self, state: State, model: Model, names: list[str]) -> Record:
        # In the order of the parts, as the plan has them.
        inputs = iter(self._run["inputs"])
        files = [
            {**state.finished[name], "inputs": [record.name(entry) for entry in islice(inputs, len(part.sources))]}
            for name, part in zip(names, self._plan.parts, strict=True)
        ]
        return record.manifest(self._run, model, self._began, files)


def _skip(part: Part, shown: Progress, rows: int) -> None:
    for source in part.sources:
        shown.update(source, source.size or 0, rows if source is part.sources[-1] else 0)
