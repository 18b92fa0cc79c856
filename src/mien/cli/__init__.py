"""The command line: one command a stage. Arguments become a config, the config goes to the stage.

Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted. With `--json` one JSON
object stands on stdout and nothing else.
"""

from mien.cli.commands import app, main, run

__all__ = ["app", "main", "run"]
