"""A batch run into a folder behind a URL, where nothing can be renamed: files one by one, `_SUCCESS` last.

Each file is there whole or not at all. What is finished is noted in `_modelpack/` inside of the folder, so that a run
that was killed goes on; these notes go when `_SUCCESS` comes.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

from modelpack.errors import UsageError
from modelpack.model import Model
from modelpack_server.batch import destination, progress, record, rejects, writers
from modelpack_server.batch.making import Maker
from modelpack_server.batch.options import Options, Summary
from modelpack_server.batch.plan import Plan
from modelpack_server.batch.record import Record
from modelpack_server.remote import RemoteFile
from modelpack_server.wholefile import exists

__all__ = ["into_remote"]

_NOTES = "_modelpack"


def into_remote(model: Model, plan: Plan, params: Mapping[str, Any], options: Options) -> Summary:
    """Carry out a plan whose output is a folder behind a URL."""
    started = time.perf_counter()
    folder = _Folder(plan, record.describe(model, plan, params, options), options)
    already = folder.begin()
    resumed = len(folder.lines)
    if not already:
        with progress.start(plan.sources, show=options.progress) as shown:
            folder.fill(Maker(model, params, options, shown))
        folder.appear(model)
    return Summary(
        rows=0 if already else sum(line["rows"] for line in folder.lines.values()),
        rejected=0,
        files=plan.files,
        seconds=time.perf_counter() - started,
        package=model.digest,
        outputs=plan.outputs,
        already=already,
        resumed=resumed,
    )


class _Folder:
    def __init__(self, plan: Plan, run: Record, options: Options) -> None:
        assert plan.remote is not None
        self._target: RemoteFile = plan.remote
        self._plan = plan
        self._run = run
        self._restart = options.restart
        self._began = record.now()
        self.lines: dict[str, Record] = {}

    def begin(self) -> bool:
        """Look what is there; say whether it is all of this very run.

        Raises:
            UsageError: something else is there (``output-exists``), or another run began (``run-changed``).
        """
        found = self._target.below()
        if destination.SUCCESS in found and destination.MANIFEST in found:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(self._target.child(destination.MANIFEST).read())["run"] == record.digest(self._run):
                    return True
            raise exists(self._target.url)
        note = self._target.child(f"{_NOTES}/run")
        if f"{_NOTES}/run" in found:
            self._go_on(json.loads(note.read()), found)
        elif found:
            raise exists(self._target.url)
        note.put(json.dumps(self._run, ensure_ascii=False).encode())
        return False

    def _go_on(self, old: Record, found: list[str]) -> None:
        streams = any("stream" in entry for entry in (*old["inputs"], *self._run["inputs"]))
        difference = record.difference(old, self._run)
        if difference is None and not self._restart:
            for part in self._plan.parts:
                name = part.name
                if f"{_NOTES}/{name}.done" in found:
                    self.lines[name] = json.loads(self._target.child(f"{_NOTES}/{name}.done").read())
            return
        if not (self._restart or streams):
            message = f"a run to this output was interrupted, and now {difference}"
            raise UsageError(message, code="run-changed", hint="Make it as it was, or begin anew with --restart.")
        for name in found:
            self._target.child(name).remove()

    def fill(self, maker: Maker) -> None:
        """Make the files that are missing."""
        for part in self._plan.parts:
            name = part.name
            if name in self.lines:
                continue
            began = time.perf_counter()
            refused = rejects.taken(None, None, count=0)
            with self._target.child(name).write(overwrite=True) as file:
                with writers.writer(part.kind, file) as out:
                    rows = maker.make(part, out, refused)
                record.unchanged(part.sources, self._run)
            size = self._target.child(name).now().size
            line = {
                "file": name,
                "size": size,
                "rows": rows,
                "rejected": 0,
                "seconds": round(time.perf_counter() - began, 3),
            }
            self._target.child(f"{_NOTES}/{name}.done").put(json.dumps(line).encode())
            self.lines[name] = line

    def appear(self, model: Model) -> None:
        """Write the manifest, then `_SUCCESS`, and remove the notes."""
        lines = [self.lines[part.name] for part in self._plan.parts]
        inputs = [[record.name(record.look(source)) for source in part.sources] for part in self._plan.parts]
        files = [{**line, "inputs": names} for line, names in zip(lines, inputs, strict=True)]
        manifest = record.manifest(self._run, model, self._began, files)
        text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
        self._target.child(destination.MANIFEST).put(text.encode())
        self._target.child(destination.SUCCESS).put(b"")
        for name in self._target.below():
            if name.startswith(f"{_NOTES}/"):
                self._target.child(name).remove()
