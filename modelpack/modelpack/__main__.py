"""``python -m modelpack`` is the command ``modelpack``."""

from modelpack.cli import main

if __name__ == "__main__":
    main(prog_name="modelpack")
