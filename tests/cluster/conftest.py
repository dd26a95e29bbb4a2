"""Hosts of the tests' own: each with its own network, processes, name, home and /tmp, joined by a bridge, with SSH.

All of them live under one process: whoever kills it leaves nothing behind. Nothing outside can be seen, stopped or
reached from in there.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import psutil
import pytest
from debian_packages import lacking

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ADDRESSES = {"laptop": "10.77.0.2", "head": "10.77.0.3", "worker-1": "10.77.0.4", "worker-2": "10.77.0.5"}
SHARED = "/srv/ktrain"
"""A folder that all hosts see, as from a file server."""
TOOLS = {"ip": "iproute2", "sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "nsenter": "util-linux"}
SSHD = """
HostKey /mnt/keys/host
AuthorizedKeysFile /mnt/keys/user.pub
PasswordAuthentication no
StrictModes no
PidFile none
"""
PATIENCE = 600.0
"""Seconds for what takes some ten on a machine that does nothing else."""


@dataclass(frozen=True)
class Lab:
    """The hosts; `folder/<host>/home` and `folder/<host>/tmp` are theirs as seen from outside."""

    folder: Path
    process: subprocess.Popen[bytes]
    addresses: ClassVar[dict[str, str]] = ADDRESSES
    shared: ClassVar[str] = SHARED

    def home(self, host: str) -> Path:
        """A host's home, from outside."""
        return self.folder / host / "home"

    def first(self, host: str) -> psutil.Process:
        """The first process of a host. Raises `LookupError` before there is one."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-1:] == [f"host-{host}"]:
                    return process
        raise LookupError(host)

    def run(self, host: str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a shell command on a host, in its root's home; output and errors together."""
        inside = ["nsenter", "--all", "--wdns=/root", f"--target={self.first(host).pid}"]
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = {"PATH": path, "HOME": "/root", "USER": "root", "LANG": "C.UTF-8", **environment}
        return subprocess.run(
            [*inside, "bash", "-c", command],
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )

    @staticmethod
    def until(true: Callable[[], Any], what: str, every: float = 0.1) -> Any:
        """What `true` returns as soon as it is true, asked `every` so many seconds; fails after its patience."""
        end = time.monotonic() + PATIENCE
        while not (value := true()):
            if time.monotonic() > end:
                pytest.fail(f"not within {PATIENCE:.0f} s: {what}")
            time.sleep(every)
        return value

    def processes(self, host: str) -> list[str]:
        """The command lines of what runs on a host, besides its first process and SSH."""
        lines = []
        for process in self.first(host).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(process.cmdline())
                if line and "sshd" not in line and line != "sleep infinity":
                    lines.append(line)
        return lines


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A laptop, a head and two workers. Skips where namespaces cannot be made or a tool is missing."""
    if missing := sorted({package for tool, package in TOOLS.items() if not shutil.which(tool, path=_path())}):
        _cannot(lacking("tools of hosts are not installed", *missing))
    folder = tmp_path_factory.mktemp("lab")
    _prepare(folder)
    command = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--mount-proc", "--net", "--uts", "--ipc"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "bash", str(folder / "lab.sh"), str(folder), SHARED],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    made = Lab(folder, process)

    def up() -> bool:
        if process.poll() is not None:
            _cannot(f"no namespaces can be made here: {(folder / 'log').read_text().strip()}")
        try:
            ssh = "ssh -o StrictHostKeyChecking=no -o BatchMode=yes -i /root/key.pem"
            return all(made.run("laptop", f"{ssh} {name} true").returncode == 0 for name in ADDRESSES)
        except LookupError:
            return False

    try:
        made.until(up, "SSH to all hosts")
        yield made
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        made.until(lambda: not any(member.is_running() for member in family), "the end of all hosts")


def _cannot(why: str) -> NoReturn:
    """Skips; but where a change is judged, a test that cannot run is a fault."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _prepare(folder: Path) -> None:
    """Keys, the hosts' names, and what of this machine they must see."""
    keys = folder / "keys"
    for name in ("keys", "shared", "laptop/home"):
        (folder / name).mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    (keys / "sshd_config").write_text(SSHD)
    shutil.copy(keys / "user", folder / "laptop" / "home" / "key.pem")
    for script in ("lab.sh", "host.sh"):
        shutil.copy(HERE / script, folder)
    lines = [f"{address} {name}" for name, address in ADDRESSES.items()]
    (folder / "addresses").write_text("\n".join([*lines, ""]))
    (folder / "hosts").write_text("\n".join([*lines, "127.0.0.1 localhost", ""]))
    # An account that is locked may not log in with a key either.
    shadow = re.sub("^root:[^:]*:", "root:*:", Path("/etc/shadow").read_text(), flags=re.MULTILINE)
    (folder / "shadow").write_text(shadow)
    kept = dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), ROOT])
    (folder / "kept").write_text("".join(f"{path}\n" for path in kept))
