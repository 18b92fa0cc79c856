"""Who may import whom, what is public, what importing may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mien

ROOT = Path(mien.__file__).parent
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "data": {"core", "synthetic"},
    "synthetic": {"core"},
    "evaluate": {"core"},
    "nn": {"core"},
    "recipes": set(),
    "models": set(),
    "runtime": {"core"},
    "report": {"core", "evaluate"},
    "stages": {"core", "data", "synthetic", "evaluate", "nn", "runtime", "report"},
    "study": {"core", "stages"},
    "cli": {"core", "stages", "study", "data"},
    "__main__": {"cli"},
    "__init__": {"core", "runtime"},
}
FILES = sorted(ROOT.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at the top level of the file) for every import."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", id(node) in top))
            found += [
                (f"{node.module}.{alias.name}", id(node) in top)
                for alias in node.names
                if node.module == "mien" or (node.module or "").startswith("mien.stages")
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_import_rules(path):
    mine = room(path)
    for module, top in imports(path):
        if module.startswith("mien.") and module.split(".")[1] != "__version__":
            other = module.split(".")[1]
            assert other == mine or other in ALLOWED[mine], f"{mine} may not import {module}"
            if mine == "stages" and other == "stages":
                assert module == "mien.stages", f"a stage imports {module}"
            if mine in {"cli", "study"} and other in {"stages", "study", "data"} and path.name != "__main__.py":
                assert not top or other == mine, f"{path.name} must import {module} lazily"


def test_rooms_are_all_known():
    assert {room(path) for path in FILES} <= set(ALLOWED)


def test_only_artifacts_write_files_that_stages_read():
    """Outside core/artifacts nothing opens a file for writing, but for videos and temporary models."""
    excused = {"runtime/video.py", "nn/export.py"}
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("core/artifacts/") or name in excused:
            continue
        text = path.read_text(encoding="utf-8").replace("base.write_text(", "").replace("base.write_bytes(", "")
        for sign in ('open("w', ".write_text(", ".write_bytes(", "pq.write_table(", "np.save(", 'open("ab'):
            assert sign not in text, f"{name} writes files itself ({sign})"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines())


def test_importing_mien_loads_neither_torch_nor_opencv():
    modules = loaded_by("import mien; mien.__version__; dir(mien)")
    assert not {"torch", "cv2", "numpy", "onnxruntime", "pyarrow"} & modules


def test_public_names():
    assert mien.__all__ == ["LABELS", "Face", "MienError", "Recognizer", "__version__"]
    for name in mien.__all__:
        assert getattr(mien, name) is not None
    with pytest.raises(AttributeError):
        _ = mien.nothing


@pytest.mark.parametrize("stage", ["index", "calibrate", "ensemble", "report", "recognize", "live", "summarize"])
def test_stages_that_need_no_torch_do_not_load_it(stage):
    assert not {"torch", "timm", "accelerate"} & loaded_by(f"import mien.cli; import mien.stages.{stage}")


def test_help_needs_no_torch():
    assert "torch" not in loaded_by("from mien.cli import run; run(['--help'])")


def test_every_command_of_the_readme_exists():
    from mien.cli import app

    names = {name for name in app if not name.startswith("-")}
    assert {
        "study",
        "quickstart",
        "index",
        "train",
        "predict",
        "calibrate",
        "ensemble",
        "distill",
        "evaluate",
        "export",
        "recognize",
        "live",
        "report",
    } <= names


def test_every_public_function_is_documented():
    missing = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            missing.append(str(path.relative_to(ROOT)))
        bodies = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_"))]
        for body in bodies:
            for node in body.body:
                if (
                    isinstance(node, ast.FunctionDef | ast.ClassDef)
                    and not node.name.startswith("_")
                    and not ast.get_docstring(node)
                ):
                    missing.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not missing
