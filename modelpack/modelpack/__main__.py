"""``python -m modelpack`` is the command ``modelpack``."""

from __future__ import annotations

from functools import partial

from modelpack import ending
from modelpack.cli import main

__all__ = ["run"]


def run() -> None:
    """Run the command line as the whole of this process."""
    ending.run(partial(main, prog_name="modelpack"))


if __name__ == "__main__":
    run()
