"""Stands in for curl on machines without it: the few options that the docs and the demo use."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request
from pathlib import Path


def content(text: str, *, binary: bool) -> bytes:
    """Return what ``-d`` means: the text itself, or with ``@`` the bytes of a file or of standard input."""
    if not text.startswith("@"):
        return text.encode()
    data = sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
    return data if binary else data.replace(b"\r", b"").replace(b"\n", b"")


def main() -> int:
    """Send one request and print the answer; 7 when nobody listens, 22 on a failure with ``-f``, as curl does."""
    parser = argparse.ArgumentParser(prog="curl", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-S", "--show-error", action="store_true")
    parser.add_argument("-f", "--fail", action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("--data-binary")
    options = parser.parse_args()

    url = options.url if "://" in options.url else f"http://{options.url}"
    headers = dict(header.split(": ", 1) for header in options.header)
    body = None
    if options.data_binary is not None:
        body = content(options.data_binary, binary=True)
    elif options.data is not None:
        body = content(options.data, binary=False)
    request = urllib.request.Request(url, data=body, headers=headers, method=options.request)
    try:
        with urllib.request.urlopen(request) as answer:
            sys.stdout.buffer.write(answer.read())
    except urllib.error.HTTPError as exc:
        if options.fail:
            return 22
        sys.stdout.buffer.write(exc.read())
    except urllib.error.URLError:
        return 7
    return 0


if __name__ == "__main__":
    sys.exit(main())
