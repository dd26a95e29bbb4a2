"""Finds the file system that holds a path, and whether other machines may mount it too."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "afs", "9p", "efs")
"""Kinds of network file systems."""
OBJECTS = ("s3fs", "gcsfuse", "goofys", "rclone", "blobfuse", "blobfuse2", "mount-s3", "geesefs", "juicefs")
"""Programs that mount object storage as a folder."""


@dataclass(frozen=True)
class Mount:
    """A mounted file system: its mount point, its kind as in /proc/mounts, and its options."""

    point: Path
    kind: str
    options: tuple[str, ...]

    @property
    def objects(self) -> bool:
        """Whether this is object storage mounted as a folder."""
        return self.kind.removeprefix("fuse.") in OBJECTS

    @property
    def network(self) -> bool:
        """Whether other machines may mount it too. FUSE may hide anything, so it counts as yes."""
        return self.kind in NETWORK or self.kind.startswith("fuse")


def mount_of(path: Path) -> Mount:
    """Returns the mount that holds `path`, which need not exist; of kind "" where the system lists none."""
    real = Path(os.path.realpath(path))
    deepest = Mount(Path("/"), "", ())
    for part in psutil.disk_partitions(all=True):
        point = Path(part.mountpoint)
        # Of several mounts at one point, the last one hides the others.
        if real.is_relative_to(point) and len(point.parts) >= len(deepest.point.parts):
            deepest = Mount(point, part.fstype, tuple(part.opts.split(",")))
    return deepest
