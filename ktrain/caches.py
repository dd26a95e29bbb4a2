"""Caches of libraries: one folder of each machine holds what they compile and download, whoever started the process."""

import os
from pathlib import Path

VARIABLE = "KTRAIN_CACHE"
"""The environment variable that names the folder; nodes of a cluster may each have their own."""
FOLDERS = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton-home",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
}
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
}


def settle(default: Path | None = None) -> Path:
    """Keeps every cache of every library inside one folder of this machine, for this process and those it starts.

    The folder is `KTRAIN_CACHE`, else `default`, else `~/.cache/ktrain`; it is returned, absolute. What the user has
    set stays. To be called before the libraries are imported: a worker of a cluster inherits the environment of its
    node and not the driver's, whose folders another machine may not have.
    """
    root = Path(os.environ.setdefault(VARIABLE, str(default or Path.home() / ".cache" / "ktrain"))).absolute()
    os.environ[VARIABLE] = str(root)
    for name, folder in FOLDERS.items():
        os.environ.setdefault(name, str(root / folder))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return root
