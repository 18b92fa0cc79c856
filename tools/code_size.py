"""Code lines, `Any` in annotations and `dict[str, Any]` of a source tree.

    python tools/code_size.py src

A code line holds a token that is no comment and no docstring.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import tokenize
from pathlib import Path

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def _docstrings(tree: ast.AST) -> set[int]:
    """Lines of docstrings, those of attributes too: strings that stand alone."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def count(text: str) -> dict[str, int]:
    """Figures of one file."""
    tree = ast.parse(text)
    documented = _docstrings(tree)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Any"]
    wide = [
        node for node in ast.walk(tree) if isinstance(node, ast.Subscript) and ast.unparse(node) == "dict[str, Any]"
    ]
    return {"code_lines": len(lines - documented), "any": len(names), "dict_str_any": len(wide)}


def main() -> None:
    """Print the sums over a folder's Python files as JSON."""
    total: dict[str, int] = {}
    for path in sorted(Path(sys.argv[1]).rglob("*.py")):
        for name, value in count(path.read_text(encoding="utf-8")).items():
            total[name] = total.get(name, 0) + value
    sys.stdout.write(json.dumps(total) + "\n")


if __name__ == "__main__":
    main()
