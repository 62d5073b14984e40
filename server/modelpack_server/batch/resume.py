"""What a run into a folder has finished so far, in a hidden directory beside the folder, for the next run to go on.

``.modelpack-<name>.resume`` holds the record of the run (``run.json``), the files that are whole (``out/``), a line
for each of them (``finished.jsonl``), and the rows they refused (``rejects/``). A line is written when its file is
safely on the disk; a file without one is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from modelpack.errors import UsageError
from modelpack_server.batch import record
from modelpack_server.batch.destination import place_of
from modelpack_server.batch.record import Record
from modelpack_server.wholefile import flush_directory

__all__ = ["State", "rejects_of"]

Line = Mapping[str, Any]


class State:
    """The state of the run that holds its ``lock``, a descriptor."""

    def __init__(self, root: Path, lock: int) -> None:
        self._root = root
        self.lock = lock
        self.out = root / "out"
        self.finished: dict[str, Line] = {}
        self._begun = False

    @classmethod
    def open(cls, target: Path) -> Self:
        """Return the state for a folder, locked.

        Raises:
            UsageError: another process has it (``output-busy``).
        """
        root = place_of(target)
        while True:
            root.mkdir(parents=True, exist_ok=True)
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The run that had it may have removed it between the calls above.
                if root.exists() and os.path.samestat(root.stat(), os.fstat(lock)):
                    return cls(root, lock)
            except BlockingIOError as exc:
                os.close(lock)
                message = f"another run writes to {target}"
                raise UsageError(message, code="output-busy", hint="Wait for it, or choose another output.") from exc
            os.close(lock)

    def begin(self, run: Record, *, restart: bool) -> None:
        """Go on with what an earlier run has finished, if that was the same run; begin anew if there is nothing.

        Raises:
            UsageError: it was another one (``run-changed``), and ``restart`` is not asked for.
        """
        self._begun = True
        old = self._read()
        if old is not None:
            difference = record.difference(old, run)
            if difference is None and not restart:
                return
            streams = any("stream" in entry for entry in (*old["inputs"], *run["inputs"]))
            if self.finished and not (restart or streams):
                message = f"a run to this output was interrupted, and now {difference}"
                hint = "Make it as it was to go on, or pass --restart to begin anew."
                raise UsageError(message, code="run-changed", hint=hint)
        self._clear()
        self._write("run.json", run)

    def discard(self) -> None:
        """Begin anew the next time."""
        (self._root / "run.json").unlink(missing_ok=True)
        self.finished = {}

    def _read(self) -> Record | None:
        try:
            run: Record = json.loads((self._root / "run.json").read_bytes())
        except FileNotFoundError:
            return None
        log = self._root / "finished.jsonl"
        for text in log.read_bytes().splitlines() if log.exists() else []:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # the last one, half written
            path = self.out / line["file"]
            if line["file"] == "" or (path.is_file() and path.stat().st_size == line["size"]):
                self.finished[line["file"]] = line
        return run

    def _clear(self) -> None:
        self.discard()
        for path in self._root.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.out.mkdir()
        (self._root / "rejects").mkdir()

    def _write(self, name: str, data: Any) -> None:
        hidden = self._root / f"{name}.new"
        with hidden.open("wb") as file:
            file.write(json.dumps(data, ensure_ascii=False).encode())
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(self._root / name)
        flush_directory(self._root)

    @contextmanager
    def part(self, name: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Yield open files for a part and its rejects, which get their names when the block ends well."""
        hidden, aside = self._root / "part", self._root / "bad"
        with hidden.open("wb") as file, aside.open("wb") as bad:
            yield file, bad
            for opened in (file, bad):
                opened.flush()
                os.fsync(opened.fileno())
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(self.rejects(name))
        hidden.replace(path)
        flush_directory(path.parent)
        flush_directory(self._root / "rejects")

    def finish(self, name: str, **facts: Any) -> None:
        """Note that a part is whole; the name "" is for the rejects of all."""
        size = (self.out / name).stat().st_size if name else 0
        line = {"file": name, "size": size, **facts}
        # Noted here first: a signal between the two must not make a file that is whole worth nothing.
        self.finished[name] = line
        with (self._root / "finished.jsonl").open("ab") as log:
            # A line that was cut off by a kill ends here.
            log.write(b"\n" + json.dumps(line, ensure_ascii=False).encode() + b"\n")
            log.flush()
            os.fsync(log.fileno())

    def placed(self, digest: str | None) -> bool:
        """Say whether the file of rejects with this digest is the one that an interrupted run put there."""
        return digest is not None and self.finished.get("", {}).get("rejects") == digest

    def rejects(self, name: str) -> Path:
        """Return where the refused rows of a part are."""
        return rejects_of(self._root, name)

    def close(self) -> None:
        """Let go of the state; it stays for the next run if there is something in it that is worth it."""
        begun = (self._root / "run.json").exists()
        if not begun or (self._begun and not self.finished.keys() - {""}):
            (self._root / "run.json").unlink(missing_ok=True)
            shutil.rmtree(self._root, ignore_errors=True)
        os.close(self.lock)


def rejects_of(root: Path, name: str) -> Path:
    """Return where the refused rows of a part are, in the directory of a state."""
    # A path can be longer than the name of a file.
    return root / "rejects" / hashlib.sha256(os.fsencode(name)).hexdigest()
