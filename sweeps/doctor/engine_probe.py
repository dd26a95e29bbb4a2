"""Imports the training engine and prints what PyTorch sees, in a process of its own, because a GPU driver can hang.

The last line is JSON: `build` (PyTorch's CUDA version, null for a CPU build), `error` (why CUDA cannot be used), `gpus`
(name, total and free bytes, bf16), `bf16` (of the processor), `engine` (why the engine cannot be imported).
"""

import json
from typing import Any

from ktrain.system.processor import processor_has_bf16


def probe() -> dict[str, Any]:
    """Returns what the module's docstring lists. Raises `ImportError` if PyTorch cannot be imported."""
    import torch

    report: dict[str, Any] = {"build": torch.version.cuda, "error": None, "gpus": [], "engine": None}
    report["bf16"] = processor_has_bf16()
    if torch.version.cuda:
        try:
            torch.cuda.init()
            report["gpus"] = [_gpu(torch, k) for k in range(torch.cuda.device_count())]
        except Exception as e:
            report["error"] = str(e).strip().splitlines()[0]
    try:
        import ktrain.training.deepspeed_engine  # noqa: F401
    except Exception as e:
        report["engine"] = f"{type(e).__name__}: {e}".splitlines()[0]
    return report


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(number)
    one = torch.ones(8, 8, device=f"cuda:{number}", dtype=torch.bfloat16)
    assert (one @ one)[0, 0].item() == 8, f"GPU {number} computes 8 ones to another sum"
    bf16 = torch.cuda.get_device_capability(number) >= (8, 0)
    return {"name": torch.cuda.get_device_name(number), "free": free, "total": total, "bf16": bf16}


if __name__ == "__main__":
    print(json.dumps(probe()))
