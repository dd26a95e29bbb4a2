"""A program of its own that imports the training engine and tells what PyTorch sees: drivers can hang, and be killed.

Its last line is JSON: `build` (CUDA version of PyTorch, null without), `error` (why CUDA cannot be used), `gpus` (name,
total and free bytes, bf16), `bf16` (of the processor), `engine` (why the engine cannot be imported).
"""

import json
from typing import Any


def seen() -> dict[str, Any]:
    """What the module's docstring says. Raises `ImportError` where PyTorch itself cannot be imported."""
    import torch

    found: dict[str, Any] = {"build": torch.version.cuda, "error": None, "gpus": [], "engine": None}
    capabilities = torch.cpu.get_capabilities()
    found["bf16"] = any(has for name, has in capabilities.items() if "bf16" in name)
    if torch.version.cuda:
        try:
            torch.cuda.init()
            found["gpus"] = [_gpu(torch, k) for k in range(torch.cuda.device_count())]
        except Exception as e:
            found["error"] = str(e).strip().splitlines()[0]
    try:
        import ktrain.engine  # noqa: F401
    except Exception as e:
        found["engine"] = f"{type(e).__name__}: {e}".splitlines()[0]
    return found


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(number)
    one = torch.ones(8, 8, device=f"cuda:{number}", dtype=torch.bfloat16)
    assert (one @ one)[0, 0].item() == 8, f"GPU {number} computes 8 ones to another sum"
    bf16 = torch.cuda.get_device_capability(number) >= (8, 0)
    return {"name": torch.cuda.get_device_name(number), "free": free, "total": total, "bf16": bf16}


if __name__ == "__main__":
    print(json.dumps(seen()))
