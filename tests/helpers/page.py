"""The live page, served as users have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(model: Path, **environment: str) -> Iterator[str]:
    """`mien serve` in its own process, with more environment variables: yields its address, ends it as Ctrl-C does."""
    command = [sys.executable, "-m", "mien", "serve", "--port", "0", "--model", str(model), "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[0] == "{\n", process.stderr.read()
        yield json.loads("".join(lines))["url"]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
