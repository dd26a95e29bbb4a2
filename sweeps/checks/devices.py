"""GPUs, processors and the engine that trains on them, as a process of its own finds them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps.checks.finding import Finding, Setting, fail, ok, skipped, warn
from sweeps.checks.versions import pins

LIMIT = 180.0
"""Seconds for importing PyTorch and DeepSpeed from a cold or slow disk, and for a driver to answer."""
NAMES = ("gpus", "bf16", "engine")
GIB = 2**30


def engine(setting: Setting) -> Iterator[Finding]:
    """`gpus`, `bf16` and `engine`: what there is, against what Ray hands out; and whether training can begin."""
    if not setting.works:
        return iter([skipped(name, "no trial runs here: Ray hands out neither CPUs nor GPUs") for name in NAMES])
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    try:
        return judged(_probe(setting), there, setting)
    except subprocess.TimeoutExpired:
        fix = "run `nvidia-smi`: where it hangs too, restart the machine; else look at the disk that Python is on"
        return iter([fail("engine", f"importing PyTorch and DeepSpeed took longer than {LIMIT:.0f} s", fix)])
    except RuntimeError as e:
        return iter([fail("engine", f"PyTorch cannot be imported: {e}", f"pip install torch=={_torch()}")])


def judged(seen: Mapping[str, Any], there: int, setting: Setting) -> Iterator[Finding]:
    """The lines for what the probe has seen on a machine with so many GPU devices."""
    yield from _gpus(seen, there, setting.gpus)
    yield _bf16(seen)
    if seen["engine"]:
        yield fail("engine", f"DeepSpeed cannot be imported: {seen['engine']}", "make install, or rebuild the image")
    else:
        yield ok("engine", "PyTorch and DeepSpeed import; AdamW is PyTorch's own, so that no DeepSpeed op is built")


def _gpus(seen: Mapping[str, Any], there: int, declared: float | None) -> Iterator[Finding]:
    found = seen["gpus"]
    wanted = int(declared) if declared is not None else there
    if seen["error"]:
        driver = f"update the NVIDIA driver, or install a build of torch {_torch()} for the CUDA of this driver"
        yield fail("gpus", f"CUDA cannot be used: {seen['error']}", driver)
    elif not seen["build"] and wanted:
        yield fail("gpus", f"{wanted} GPUs, but PyTorch is a build for CPUs", f"pip install torch=={_torch()} for CUDA")
    elif len(found) < wanted:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None else ""
        source = "Ray hands out" if declared is not None else "the machine has"
        fix = f"start Ray here with --num-gpus={len(found)}, or make `nvidia-smi` show {wanted}"
        yield fail("gpus", f"{source} {wanted}, PyTorch sees {len(found)}{reason}", fix)
    elif not found:
        yield skipped("gpus", "none here")
    else:
        names = ", ".join(f"{g['name']} {g['total'] / GIB:.0f} GiB" for g in found)
        busy = [k for k, gpu in enumerate(found) if gpu["free"] < gpu["total"] / 2]
        if busy:
            free = ", ".join(f"GPU {k}: {found[k]['free'] / GIB:.0f} GiB free" for k in busy)
            yield warn("gpus", f"{free} ({names})", "`nvidia-smi` shows who holds it; wait for it or end it")
        else:
            yield ok("gpus", names + (f", of which Ray hands out {wanted}" if wanted < len(found) else ""))


def _bf16(seen: Mapping[str, Any]) -> Finding:
    devices = [gpu["bf16"] for gpu in seen["gpus"]] or [seen["bf16"]]
    kind = "GPU" if seen["gpus"] else "processor"
    if all(devices):
        return ok("bf16", f"the {kind} computes in bf16")
    fix = "add train.precision=fp32 readout.precision=fp32 to ktrain run: other keys, and faster here"
    return warn("bf16", f"the {kind} has no bf16 instructions", fix)


def _probe(setting: Setting) -> dict[str, Any]:
    """What `engine_probe` prints. Raises `RuntimeError` with its last line where it fails, `TimeoutExpired`."""
    environment = dict(os.environ)
    if setting.in_cluster and environment.get("CUDA_VISIBLE_DEVICES") == "":
        # Ray hides GPUs from whoever asks for none.
        del environment["CUDA_VISIBLE_DEVICES"]
    command = [sys.executable, "-m", "sweeps.checks.engine_probe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _torch() -> str:
    return pins().get("torch", "2.13.0")
