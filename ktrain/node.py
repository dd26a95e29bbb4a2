"""Node: the folders that belong to one machine, whatever else is shared between machines."""

import os
import tempfile
from pathlib import Path

import psutil

_NETWORKS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p", "fuse.")
"""How the types of file systems begin that several machines may share."""
_LIBRARIES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "TRITON_HOME": "triton-home",
    "HF_HOME": "huggingface",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "xdg",
}


def folder() -> Path:
    """Where this machine keeps verified copies of results: `KTRAIN_CACHE`, or `~/.cache/ktrain`.

    A home that machines share is passed over for the temporary folder.
    """
    if named := os.environ.get("KTRAIN_CACHE"):
        return Path(named).absolute()
    home = Path("~/.cache/ktrain").expanduser()
    return temporary() if shared(home) else home


def temporary() -> Path:
    """A folder of this user that can be made on every machine under the same name."""
    return Path(tempfile.gettempdir()) / f"ktrain-{os.getuid()}"


def shared(path: Path) -> bool:
    """Whether a path, there or not, lies on a file system of the network."""
    real = os.path.realpath(path)
    over = [p for p in psutil.disk_partitions(all=True) if os.path.commonpath([real, p.mountpoint]) == p.mountpoint]
    innermost = max(over, key=lambda p: len(p.mountpoint), default=None)
    return innermost is not None and innermost.fstype.startswith(_NETWORKS)


def keep_caches(root: Path | None = None) -> None:
    """Keeps every cache of every library inside `root`, for this process and those that it starts.

    Without `root`, or where it lies on the network, they are in `folder()`: two machines that compile into one folder
    wait for each other's locks, and load code that was made for another processor.
    """
    chosen = folder() if root is None or (shared(root) and "KTRAIN_CACHE" not in os.environ) else root
    for name, part in _LIBRARIES.items():
        os.environ.setdefault(name, str(chosen / part))
