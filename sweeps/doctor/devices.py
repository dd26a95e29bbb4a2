"""The checks `gpus`, `bf16` and `engine`: devices and the training engine, as a process of its own sees them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps.doctor.finding import CheckContext, Finding, fail, ok, skipped, warn
from sweeps.doctor.versions import pins

LIMIT = 180.0
"""Seconds for importing PyTorch and DeepSpeed from a cold or slow disk, and for a driver to answer."""
NAMES = ("gpus", "bf16", "engine")
GIB = 2**30


def engine(context: CheckContext) -> Iterator[Finding]:
    """`gpus`, `bf16` and `engine`: the devices against those that Ray hands out, and whether training can start."""
    if not context.works:
        return iter([skipped(name, "no trial runs here: Ray hands out neither CPUs nor GPUs") for name in NAMES])
    there = len(list(Path("/dev").glob("nvidia[0-9]*")))
    try:
        return judge(_probe(context), there, context)
    except subprocess.TimeoutExpired:
        fix = "run `nvidia-smi`: where it hangs too, restart the machine; else look at the disk that Python is on"
        return iter([fail("engine", f"importing PyTorch and DeepSpeed took longer than {LIMIT:.0f} s", fix)])
    except RuntimeError as e:
        return iter([fail("engine", f"PyTorch cannot be imported: {e}", f"pip install torch=={_torch()}")])


def judge(probe: Mapping[str, Any], there: int, context: CheckContext) -> Iterator[Finding]:
    """Judges what `engine_probe` printed on a machine with `there` GPU devices in `/dev`."""
    yield from _gpus(probe, there, context.gpus)
    yield _bf16(probe)
    if probe["engine"]:
        yield fail("engine", f"DeepSpeed cannot be imported: {probe['engine']}", "make install, or rebuild the image")
    else:
        yield ok("engine", "PyTorch and DeepSpeed import; AdamW is PyTorch's own, so that no DeepSpeed op is built")


def _gpus(probe: Mapping[str, Any], there: int, declared: float | None) -> Iterator[Finding]:
    gpus = probe["gpus"]
    wanted = int(declared) if declared is not None else there
    if probe["error"]:
        driver = f"update the NVIDIA driver, or install a build of torch {_torch()} for the CUDA of this driver"
        yield fail("gpus", f"CUDA cannot be used: {probe['error']}", driver)
    elif not probe["build"] and wanted:
        yield fail("gpus", f"{wanted} GPUs, but PyTorch is a build for CPUs", f"pip install torch=={_torch()} for CUDA")
    elif len(gpus) < wanted:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = f" (CUDA_VISIBLE_DEVICES={hidden})" if hidden is not None else ""
        source = "Ray hands out" if declared is not None else "the machine has"
        fix = f"start Ray here with --num-gpus={len(gpus)}, or make `nvidia-smi` show {wanted}"
        yield fail("gpus", f"{source} {wanted}, PyTorch sees {len(gpus)}{reason}", fix)
    elif not gpus:
        yield skipped("gpus", "none here")
    else:
        names = ", ".join(f"{g['name']} {g['total'] / GIB:.0f} GiB" for g in gpus)
        busy = [k for k, gpu in enumerate(gpus) if gpu["free"] < gpu["total"] / 2]
        if busy:
            free = ", ".join(f"GPU {k}: {gpus[k]['free'] / GIB:.0f} GiB free" for k in busy)
            yield warn("gpus", f"{free} ({names})", "`nvidia-smi` shows who holds it; wait for it or end it")
        else:
            yield ok("gpus", names + (f", of which Ray hands out {wanted}" if wanted < len(gpus) else ""))


def _bf16(probe: Mapping[str, Any]) -> Finding:
    devices = [gpu["bf16"] for gpu in probe["gpus"]] or [probe["bf16"]]
    kind = "GPU" if probe["gpus"] else "processor"
    if all(devices):
        return ok("bf16", f"the {kind} computes in bf16")
    return ok("bf16", f"the {kind} has no bf16 instructions: what asks for bf16 is computed in fp32")


def _probe(context: CheckContext) -> dict[str, Any]:
    """Runs `engine_probe`. Raises `RuntimeError` with its last line if it fails, and `TimeoutExpired`."""
    environment = dict(os.environ)
    if context.in_cluster and environment.get("CUDA_VISIBLE_DEVICES") == "":
        # Ray hides GPUs from actors that ask for none.
        del environment["CUDA_VISIBLE_DEVICES"]
    command = [sys.executable, "-m", "sweeps.doctor.engine_probe"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200])
    probe: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return probe


def _torch() -> str:
    return pins().get("torch", "2.13.0")
