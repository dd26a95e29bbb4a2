"""Node: the folders that belong to one machine, whatever else is shared between machines."""

import os
import tempfile
from pathlib import Path

from ktrain.mounts import mount

CACHE = "KTRAIN_CACHE"
"""The environment variable that names the folder; nodes of a cluster may each have their own."""
LIBRARIES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton-home",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
}
"""The variables of libraries for their caches, and the part of the folder that each gets."""
SETTINGS = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def folder(default: Path | None = None) -> Path:
    """Where this machine keeps verified copies of results and caches of libraries, absolute: `KTRAIN_CACHE`, else
    `default`, else `~/.cache/ktrain`.

    A place that machines share is passed over for the temporary folder: two machines that compile into one folder wait
    for each other's locks, and load code that was made for another processor.
    """
    if named := os.environ.get(CACHE):
        return Path(named).absolute()
    home = (default or Path("~/.cache/ktrain").expanduser()).absolute()
    return temporary() if mount(home).network else home


def temporary() -> Path:
    """A folder of this user that can be made on every machine under the same name."""
    return Path(tempfile.gettempdir()) / f"ktrain-{os.getuid()}"


def keep_caches(default: Path | None = None) -> Path:
    """Keeps every cache of every library inside `folder(default)`, which is returned, for this process and those that
    it starts; what the user has set stays.

    To be called before the libraries are imported. A worker of a cluster inherits the environment of its machine and
    not the driver's, whose folders another machine may not have.
    """
    root = folder(default)
    os.environ[CACHE] = str(root)
    for name, part in LIBRARIES.items():
        os.environ.setdefault(name, str(root / part))
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    return root
