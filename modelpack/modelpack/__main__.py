"""``python -m modelpack`` is the command ``modelpack``."""

from __future__ import annotations

from modelpack import ending
from modelpack.cli import main
from modelpack.cli.report import guard

__all__ = ["run"]


def run() -> None:
    """Run the command line as the whole of this process."""
    ending.run(_command_line)


def _command_line() -> None:
    # Commands guard themselves; what is left is what click prints for them: help, and the version.
    with guard():
        main(prog_name="modelpack")


if __name__ == "__main__":
    run()
