"""The check `compiler`: what `torch.compile` needs."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sweeps.doctor.finding import CheckContext, Finding, fail, ok, skipped

LIMIT = 60.0
SOURCE = """
#include <Python.h>
#ifdef _OPENMP
#include <omp.h>
#endif
extern "C" int answer() { return PY_MAJOR_VERSION; }
"""
PACKAGES = "apt-get install build-essential python3-dev (or run with --no-compile, slower)"


def compiler(context: CheckContext) -> Iterator[Finding]:
    """`compiler`: builds a small library with Python's headers and OpenMP.

    On CPUs `torch.compile` uses `CXX` or g++; on GPUs Triton uses `CC`, clang or gcc. DeepSpeed builds no op, so ninja
    is not needed: see `ktrain.training.deepspeed_engine`.
    """
    if not context.works:
        yield skipped("compiler", "no trial runs here")
        return
    gpus = bool(context.gpus) or any(Path("/dev").glob("nvidia[0-9]*"))
    variable = "CC" if gpus else "CXX"
    names = [os.environ[variable]] if os.environ.get(variable) else ["clang", "gcc"] if gpus else ["g++"]
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        source = f"{variable}={names[0]}" if os.environ.get(variable) else " and ".join(names)
        yield fail("compiler", f"{source} not on PATH, and torch.compile needs it", PACKAGES)
        return
    yield _tried(program, "c" if gpus else "c++")


def _tried(program: str, language: str) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "probe.c", Path(folder) / "probe.so"
        source.write_text(SOURCE.replace('extern "C" ', "") if language == "c" else SOURCE)
        include = sysconfig.get_paths()["include"]
        openmp = ["-fopenmp"] if language == "c++" else []
        command = [program, "-x", language, "-O1", "-fPIC", "-shared", *openmp, f"-I{include}"]
        command += [str(source), "-o", str(library)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT - 5, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            return fail("compiler", f"{program}: {e}", PACKAGES)
        if done.returncode or not library.is_file():
            said = [*(line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip(), "fails"]
            return fail("compiler", f"{program}: {next(filter(None, said)).strip()[-160:]}", PACKAGES)
    return ok("compiler", f"{program} builds with Python's headers{' and OpenMP' if openmp else ''}")
