"""The unit tests under the code paths that other processors take: `make test-cpus`.

One line a setting of the environment: passed, failed or skipped (this processor cannot run that path), and the time.
The exit status is 1 when one failed. `python tests/cpus.py NAME …` runs the settings whose line contains a NAME.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).parents[1]
TESTS = (
    "-m",
    "pytest",
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "-m",
    "not trains and not slow and not long",
    "tests/unit",
)
AVX2, AVX512 = ("AVX2", "FMA3"), ("AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL")


@dataclass(frozen=True)
class Setting:
    """A variable of the environment, and the instructions without which that path is an illegal instruction."""

    variable: str
    value: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.variable}={self.value or '(no AVX-512)'}"


# What numpy would use of AVX-512 here: to name what is not there is a warning, and so an error.
WIDE = [f for f in __cpu_dispatch__ if f.startswith(("AVX512", "X86_V4")) and __cpu_features__.get(f)]
SETTINGS = (
    Setting("OMP_NUM_THREADS", "1"),
    Setting("OPENBLAS_CORETYPE", "Haswell", AVX2),
    Setting("OPENBLAS_CORETYPE", "SkylakeX", AVX512),
    Setting("OPENBLAS_CORETYPE", "Zen", AVX2),
    Setting("ATEN_CPU_CAPABILITY", "default"),
    Setting("ATEN_CPU_CAPABILITY", "avx2", AVX2),
    Setting("ONEDNN_MAX_CPU_ISA", "AVX2", AVX2),
    Setting("MKL_ENABLE_INSTRUCTIONS", "AVX2", AVX2),
    Setting("MKL_ENABLE_INSTRUCTIONS", "SSE4_2"),
    Setting("MKL_CBWR", "COMPATIBLE"),
    Setting("NPY_DISABLE_CPU_FEATURES", " ".join(WIDE)),
)


def reason_to_skip(setting: Setting) -> str:
    """Why this processor cannot run a setting; empty when it can."""
    if setting.variable != "OMP_NUM_THREADS" and platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the processor is {platform.machine()}"
    if not setting.value:
        return "numpy uses no AVX-512 here"
    lacks = [feature for feature in setting.needs if not has(feature)]
    return f"the processor lacks {', '.join(lacks)}" if lacks else ""


def has(feature: str) -> bool:
    """Whether the processor has it, as numpy names it or, where numpy knows only groups of them, Linux."""
    if __cpu_features__.get(feature):
        return True
    path = Path("/proc/cpuinfo")
    return path.is_file() and feature.lower() in path.read_text(encoding="utf-8").split()


def run(setting: Setting) -> tuple[str, str]:
    """The outcome of the tests under one setting, and the last lines of a failure."""
    done = subprocess.run(
        [sys.executable, *TESTS],
        cwd=ROOT,
        env=os.environ | {setting.variable: setting.value},
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    return ("passed", "") if done.returncode == 0 else (f"failed ({done.returncode})", output[-4000:])


def main() -> int:
    """Run the settings; 1 when one failed."""
    wanted = sys.argv[1:]
    failed = False
    for setting in SETTINGS:
        if wanted and not any(name in setting.name for name in wanted):
            continue
        reason = reason_to_skip(setting)
        begin = time.monotonic()
        outcome, tail = (f"skipped: {reason}", "") if reason else run(setting)
        took = "" if reason else f"{time.monotonic() - begin:6.0f} s"
        print(f"{setting.name:42} {outcome:12} {took}", flush=True)
        if tail:
            print(tail, flush=True)
        failed |= outcome.startswith("failed")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
