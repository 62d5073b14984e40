"""A server that speaks S3, in a process of its own: it notes each request, and can be told to lose an answer.

`python s3_server.py NOTES` prints its address, and ends with its standard input. NOTES gets a line for each request:
its method, its path, its query and what must not be there (If-None-Match). If there is a file NOTES.lose, the next
request whose method and path begin with what is in there is carried out, and answered with 500 all the same. As long as
there is a file NOTES.deny, nobody is let in.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OPTIONS", "SECRET", "Server", "started"]

SECRET = "do-not-tell-anybody"
KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
# delta-rs wants to be allowed to do without TLS.
OPTIONS = {"allow_http": "true"}
DENIED = f"<Error><Code>AccessDenied</Code><Message>User somebody with {SECRET} may not do that</Message></Error>"


@dataclass(frozen=True)
class Server:
    """One that runs."""

    address: str
    notes: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """What says where it is, and who asks."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.address}

    def requests(self) -> list[str]:
        """Return the requests so far."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def lose(self, request: str) -> None:
        """Carry out the next request that begins like this, and say that it failed."""
        self.notes.with_suffix(".lose").write_text(request)

    def is_to_lose(self) -> bool:
        """Say whether that request is still to come."""
        return self.notes.with_suffix(".lose").exists()

    @contextmanager
    def denied(self) -> Iterator[None]:
        """Let nobody in while the block runs."""
        deny = self.notes.with_suffix(".deny")
        deny.touch()
        try:
            yield
        finally:
            deny.unlink()


@contextmanager
def started(folder: Path) -> Iterator[Server]:
    """Start a server, and end it behind the block."""
    notes = folder / "requests"
    line = [sys.executable, "-W", "ignore", __file__, str(notes)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip(), notes, process)
        if process.poll() is None:
            process.communicate("", timeout=30)


def main(notes: Path) -> None:
    """Serve until standard input ends."""
    from moto.moto_server import werkzeug_app
    from moto.server import ThreadedMotoServer

    lock, lose, deny = threading.Lock(), notes.with_suffix(".lose"), notes.with_suffix(".deny")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    inner = werkzeug_app.DomainDispatcherApplication.__call__

    def call(self: Any, environ: Any, start_response: Any) -> Any:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        with notes.open("a") as file:
            file.write(f"{request} {environ.get('QUERY_STRING', '')} {environ.get('HTTP_IF_NONE_MATCH', '')}\n")
        if deny.exists():
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(DENIED)))])
            return [] if request.startswith("HEAD") else [DENIED.encode()]
        said: list[Any] = []
        # A service decides which of two writes to one name is first. Moto looks, and then writes.
        with lock:
            found = list(inner(self, environ, lambda *words: said.append(words)))
        if lose.exists() and request.startswith(lose.read_text()):
            lose.unlink()
            said, found = [("500 Internal Server Error", [("Content-Length", "0")])], []
        start_response(*said[-1])
        return found

    werkzeug_app.DomainDispatcherApplication.__call__ = call
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
