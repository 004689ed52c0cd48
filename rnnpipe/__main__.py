"""`python -m rnnpipe` and the console script `rnnpipe`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from rnnpipe.cli import run

    run()


if __name__ == "__main__":
    main()
