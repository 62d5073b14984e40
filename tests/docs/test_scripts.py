"""The programs in scripts/ that people and the docs rely on."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = ROOT / "scripts"


def run(name: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python program of scripts/ in an empty home."""
    env = {**os.environ, "HOME": str(cwd)}
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *words], capture_output=True, text=True, cwd=cwd, env=env
    )


@pytest.mark.slow
def test_the_demo_gets_the_models_own_answers_every_way(tmp_path: Path):
    done = run("demo.py", "penguins", "--keep", "kept", cwd=tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("344 of 344 answers equal") == 7
    assert (tmp_path / "kept" / "penguins" / "modelpack.json").is_file()


def test_the_demo_refuses_a_case_it_does_not_have(tmp_path: Path):
    assert run("demo.py", "whales", cwd=tmp_path).returncode == 2


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the request's type and body; 404 for GET /missing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.headers["Content-Type"].encode() + b" " + body)

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"no such page")

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_stand_in_for_curl_posts_text_and_files(address: str, tmp_path: Path):
    (tmp_path / "body").write_bytes(b"a\nb\n")

    text = run("curl.py", "-s", address, "-H", "Content-Type: text/plain", "-d", "hello", cwd=tmp_path)
    file = run("curl.py", "-s", address, "-H", "Content-Type: text/csv", "--data-binary", "@body", cwd=tmp_path)
    joined = run("curl.py", "-s", address, "-H", "Content-Type: text/csv", "-d", "@body", cwd=tmp_path)

    assert [text.stdout, file.stdout, joined.stdout] == ["text/plain hello", "text/csv a\nb\n", "text/csv ab"]


def test_the_stand_in_for_curl_ends_as_curl_does(address: str, tmp_path: Path):
    shown = run("curl.py", "-s", f"http://{address}/missing", cwd=tmp_path)
    failed = run("curl.py", "-sf", f"http://{address}/missing", cwd=tmp_path)
    nobody = run("curl.py", "-s", "127.0.0.1:1", cwd=tmp_path)

    assert (shown.returncode, shown.stdout) == (0, "no such page")
    assert (failed.returncode, failed.stdout) == (22, "")
    assert nobody.returncode == 7
