"""Who may import whom, what is public, what importing may load."""

from __future__ import annotations

import ast
import graphlib
import re
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
    "web": {"core"},
    "stages": {"core", "data", "synthetic", "evaluate", "nn", "runtime", "report", "web"},
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


# What else may write, and why no stage reads it: (file, function or method) pairs.
WRITERS = {
    ("runtime/video.py", "cv2.VideoWriter"),  # videos, for the eye
    ("nn/export.py", "onnx.save"),  # a temporary model, whose bytes core/artifacts writes
    ("nn/models/pretrained.py", "torch.save"),  # the text of an error's fix
    ("report/figures.py", ".savefig"),  # into memory
    ("stages/report.py", "base.write_bytes"),  # documents for the eye
    ("web/assets.py", "base.write_bytes"),  # other projects' files, for the page's server
    ("web/assets.py", "base.write_json"),  # their manifest
    ("stages/bench.py", "base.write_json"),  # figures for the user, which no stage reads
    ("stages/temperature_sweep.py", "base.write_json"),  # a figure and its numbers, for the user
    ("stages/temperature_sweep.py", "base.write_text"),
    ("stages/temperature_sweep.py", "base.write_bytes"),
    ("stages/index.py", "base.write_bytes"),  # images of `mien index audit --figures`
    ("study/side_by_side.py", ".open("),  # what trainings side by side say
}
WRITING = re.compile(
    r"\bbase\.write_\w+|\bwrite_(?:text|bytes|json|table|manifest)\b|\.open\(\s*[\"'][wax]|\bopen\([^)]*,\s*[\"'][wax]"
    r"|\bnp\.savez?\w*|\btorch\.save|\bsave_file\b|\bcv2\.(?:imwrite|VideoWriter)\b|\bonnx\.save\w*|\.(?:to_csv|to_parquet|savefig)\b"
)


def written(text: str) -> set[str]:
    """How a file's code writes files: `base.write_json`, `np.save`, …"""
    return {re.sub(r"[\s\"'].*", "", found) for found in WRITING.findall(text)}


@pytest.mark.parametrize(
    "code",
    ['base.write_json(out / "a.json", {})', 'path.open("w")', "np.savez(path, a=1)", "from base import write_json"],
)
def test_the_eye_for_writers_sees(code):
    assert written(code)


def test_only_artifacts_write_files_that_stages_read():
    """Outside core/artifacts nothing writes a file, crash-safely or not, but what is named with its reason."""
    found = set()
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("core/artifacts/"):
            found |= {(name, how) for how in written(path.read_text(encoding="utf-8"))}
    assert found == WRITERS


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


@pytest.mark.parametrize(
    "stage",
    ["index", "calibrate", "ensemble", "report", "recognize", "live", "video", "replay", "serve", "study_summary"],
)
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
        "serve",
        "video",
        "replay",
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


def test_the_formatter_formats_everything():
    files = [
        path for room in ("src", "tests", "benchmarks", "tools") for path in (ROOT.parents[1] / room).rglob("*.py")
    ]
    excepted = re.compile(r"#\s*fmt:\s*(skip|off)")
    assert len(files) > 300
    assert [str(path) for path in files if excepted.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.slow
def test_no_module_imports_itself_by_a_detour():
    """Imports inside functions count, and those for types: a circle of modules cannot be read one at a time."""
    names = {
        ".".join(("mien", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in FILES
    }
    waits = {name: {m for m, _ in imports(path)} | set(members(path)) for name, path in names.items()}
    needs = {  # a package does not wait for what it holds
        name: {m for m in found & set(names) if m != name and not name.startswith(f"{m}.")}
        for name, found in waits.items()
    }
    graphlib.TopologicalSorter(needs).prepare()  # CycleError names the circle


def members(path: Path) -> list[str]:
    """`package.name` for each name that is imported from a package: it may be a module."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    return [f"{node.module}.{alias.name}" for node in nodes for alias in node.names]
