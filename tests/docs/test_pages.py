"""Runs what README.md and docs/ tell the reader to run, page by page, in order, in an empty directory.

A page that carries the line ``<!-- executed by the suite -->`` is run:

- ``python`` blocks share one namespace per page; a ``text`` block right below one is what it must print;
- ``console`` blocks hold ``$ command`` lines and, if any follow, the lines these must print;
- ``sh`` blocks are scripts that must succeed.

``...`` stands for anything, white space counts once, port 8000 becomes a free one. A command that ends in ``&`` is
started, waited for until it answers on its port, and stopped at the end of the page. Above a block,
``<!-- exits: 1 -->`` says how its last command ends, and ``<!-- not run: REASON -->`` leaves it out.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "<!-- executed by the suite -->"
ALWAYS = ["README.md", "docs/tutorial.md", "docs/save-and-load.md", "docs/spark.md", "docs/trust.md"]
FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"<!-- (?P<key>exits|not run): (?P<value>.*?) -->\s*\Z")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block, and what the notes around it say."""

    kind: str
    body: str
    line: int
    exits: int = 0
    prints: str | None = None
    skipped: bool = False


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found: list[Block] = []
    matches = list(FENCE.finditer(text))
    for index, match in enumerate(matches):
        note = NOTE.search(text[: match.start()])
        after = matches[index + 1] if index + 1 < len(matches) else None
        prints = None
        if after and after["kind"] == "text" and not text[match.end() : after.start()].strip():
            prints = after["body"]
        found.append(
            Block(
                kind=match["kind"],
                body=match["body"],
                line=text[: match.start()].count("\n") + 2,
                exits=int(note["value"]) if note and note["key"] == "exits" else 0,
                prints=prints,
                skipped=bool(note and note["key"] == "not run"),
            )
        )
    return found


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Yield each ``$ command`` of a console block with the text below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        end = next(i for i, line in enumerate(lines) if not line.rstrip("\n").endswith("\\")) + 1
        yield "".join(lines[:end]).strip(), "".join(lines[end:])


def assert_prints(expected: str, actual: str, where: str) -> None:
    """Compare as doctest does: ``...`` for anything, white space once."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(expected, actual, flags)
    assert same, f"{where}\nexpected:\n{expected}\nprinted:\n{actual}"


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Reader:
    """Follows one page in its own directory."""

    page: str
    folder: Path
    port: int = field(default_factory=free_port)
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__page__"})
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        """Do what the block says and compare."""
        where = f"{self.page}:{block.line}"
        if block.skipped:
            return
        if block.kind == "python":
            self.python(block, where)
        elif block.kind == "console":
            for command, expected in commands(self.own_port(block.body)):
                self.shell(command, self.own_port(expected), block.exits, where)
        elif block.kind == "sh":
            self.shell(self.own_port(block.body), "", block.exits, where)

    def own_port(self, text: str) -> str:
        return re.sub(r"\b8000\b", str(self.port), text)

    def python(self, block: Block, where: str) -> None:
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + self.own_port(block.body), str(ROOT / self.page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, self.names)
        if block.prints is not None:
            assert_prints(block.prints, printed.getvalue(), where)

    def shell(self, command: str, expected: str, exits: int, where: str) -> None:
        if command.endswith("&"):
            self.serve(command.removesuffix("&"), where)
            return
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
        )
        assert done.returncode == exits, f"{where}: {command}: exit {done.returncode}\n{done.stdout}"
        if expected.strip():
            assert_prints(expected, done.stdout, f"{where}: {command}")

    def serve(self, command: str, where: str) -> None:
        log = self.folder / "server.log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.servers.append(server)
        for _ in range(600):
            assert server.poll() is None, f"{where}: {command}\n{log.read_text()}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        pytest.fail(f"{where}: nothing listens after a minute: {command}\n{log.read_text()}")

    def close(self) -> None:
        """Stop every server and wait for it."""
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


@pytest.fixture
def reader(
    warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Reader]:
    """A reader in an empty directory, at home there, with the commands of this interpreter first on the path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "modelpack").symlink_to(warm)
    if shutil.which("curl") is None:
        curl = programs / "curl"
        curl.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{ROOT}/scripts/curl.py" "$@"\n')
        curl.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    reader = Reader(page=request.param, folder=work)
    interrupt = signal.getsignal(signal.SIGINT)
    yield reader
    reader.close()
    signal.signal(signal.SIGINT, interrupt)  # a session of Spark sets its own


def pages() -> list[str]:
    """Return the pages that are run."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found if MARK in path.read_text(encoding="utf-8")]


# On the page about Spark: pyspark leaves the closing of its sockets to the collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("reader", pages(), indirect=True)
def test_what_the_page_says_is_what_happens(reader: Reader):
    for block in blocks((ROOT / reader.page).read_text(encoding="utf-8")):
        reader.follow(block)


@pytest.mark.parametrize("page", ALWAYS)
def test_the_page_is_run(page: str):
    assert page in pages()


def test_blocks_are_found_with_what_is_said_about_them():
    page = """\
<!-- exits: 1 -->
```console
$ false
```

```python
print(1)
```

```text
1
```

<!-- not run: needs a GPU -->
```sh
train
```
"""
    first, second, third, fourth = blocks(page)

    assert (first.kind, first.exits, first.line) == ("console", 1, 3)
    assert (second.kind, second.prints) == ("python", "1\n")
    assert third.kind == "text"
    assert (fourth.kind, fourth.skipped) == ("sh", True)


def test_commands_keep_their_continuation_lines_and_what_they_print():
    assert list(commands("$ echo \\\n  a\na\n$ true\n")) == [("echo \\\n  a", "a\n"), ("true", "")]


def test_a_page_whose_output_is_wrong_fails(tmp_path: Path):
    reader = Reader(page="page.md", folder=tmp_path)

    with pytest.raises(AssertionError, match=r"page\.md:2"):
        reader.follow(Block(kind="console", body="$ echo right\nwrong\n", line=2))
    with pytest.raises(AssertionError, match="exit 3"):
        reader.follow(Block(kind="sh", body="exit 3\n", line=2))
    with pytest.raises(AssertionError, match="expected"):
        reader.follow(Block(kind="python", body="print(1)\n", line=2, prints="2\n"))


def test_a_page_that_is_right_passes(tmp_path: Path):
    reader = Reader(page="page.md", folder=tmp_path)

    reader.follow(Block(kind="console", body="$ echo a 8000 c\na ... c\n", line=2))
    reader.follow(Block(kind="python", body="x = 1\n", line=2))
    reader.follow(Block(kind="python", body="print(x)\n", line=4, prints="1\n"))
    reader.follow(Block(kind="sh", body="exit 3\n", line=2, exits=3))
    reader.follow(Block(kind="sh", body="exit 3\n", line=2, skipped=True))
