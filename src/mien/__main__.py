"""The entry point: `mien` and `python -m mien`. An interrupt while modules load is an interrupt too."""

import sys


def main() -> None:
    """Load and run the command line."""
    try:
        from mien import cli  # noqa: PLC0415

        cli.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
