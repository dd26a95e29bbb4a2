"""What is shipped for a head: the script that prepares it, and the unit that keeps its server running."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from debian_packages import lacking
from postgres import Missing, programs

ROOT = Path(__file__).parents[2]
SERVICES = ROOT / "cluster" / "services"
SETUP = """
set -e
ip link set lo up
for folder in /etc/postgresql /var/lib/postgresql /var/log/postgresql /run/postgresql; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
    chown postgres:postgres $folder
done
"""
"""A machine of the test's own, as far as PostgreSQL goes: without clusters, and with nothing on the network."""
KTRAIN = """#!/bin/sh
set -e
echo "$@" >>$OUT/calls
psql -X -q -d "$KTRAIN_DATABASE_URL" -c "CREATE TABLE t$$ ()"
ss -H -l -t -n >$OUT/listening
for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$file; echo; done >$OUT/commands 2>/dev/null || true
"""
"""In the place of `ktrain`: writes down what it is called with, and works in the database."""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with a `ktrain` and a home; skips where a machine of the test's own cannot be made."""
    try:
        programs()
    except Missing as e:
        pytest.skip(str(e))
    if os.geteuid():
        pytest.skip("needs root")
    tools = {"unshare": "util-linux", "ip": "iproute2", "ss": "iproute2", "pg_lsclusters": "postgresql-common"}
    if missing := sorted({package for tool, package in tools.items() if not shutil.which(tool)}):
        pytest.skip(lacking("tools of a head are not installed", *missing))
    if subprocess.run(["unshare", "-m", "-n", "-p", "--fork", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no namespaces")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ktrain").write_text(KTRAIN)
    (tmp_path / "bin" / "ktrain").chmod(0o755)
    (tmp_path / "home").mkdir()
    return tmp_path


def on(machine: Path, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs a script on a machine of its own, which ends with it and all that was started there."""
    path = f"{machine / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": path, "HOME": str(machine / "home"), "OUT": str(machine), "LANG": "C.UTF-8", **more}
    command = ["unshare", "-m", "-n", "-p", "--fork", "--mount-proc", "bash", "-c", SETUP + script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_head_is_prepared_once_and_found_again(machine: Path) -> None:
    head = SERVICES / "head.sh"
    config = machine / "home" / ".config" / "ktrain"
    done = on(
        machine,
        f"""
        {head} --workers 3
        cp {config}/pgpass $OUT/first
        {head}
        cmp {config}/pgpass $OUT/first
        pg_ctlcluster --force $(pg_lsclusters -h | cut -d' ' -f1) ktrain stop
        {head} & first=$!; {head}; wait $first
        # A head that came back with an empty disk and the old home.
        pg_dropcluster --stop $(pg_lsclusters -h | cut -d' ' -f1) ktrain
        {head}
        pg_lsclusters -h >$OUT/clusters
        """,
    )
    assert done.returncode == 0, done.stderr
    calls = (machine / "calls").read_text().splitlines()
    assert calls == ["serve --detach --workers 3", *["serve --detach"] * 4]
    (cluster,) = (machine / "clusters").read_text().splitlines()
    version, name, port, state, *_ = cluster.split()
    assert (name, state) == ("ktrain", "online") and version.isdecimal()
    listening = [line.split()[3] for line in (machine / "listening").read_text().splitlines()]
    assert listening and all(place in (f"127.0.0.1:{port}", f"[::1]:{port}") for place in listening)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in config.iterdir()} == dict.fromkeys(
        ("pgpass", "head.env", "head.lock"), 0o600
    )
    password = (config / "pgpass").read_text().strip().split(":")[4]
    assert len(password) >= 32 and (machine / "first").read_text().strip().endswith(password)
    assert password not in (machine / "commands").read_text() + (config / "head.env").read_text() + done.stdout
    assert "postgres -D" in (machine / "commands").read_text()


def test_a_database_elsewhere_is_taken_as_it_is(machine: Path) -> None:
    (machine / "bin" / "ktrain").write_text('#!/bin/sh\necho "$@" $KTRAIN_DATABASE_URL >$OUT/calls\n')
    url = "postgresql://me@db.example.org/lab"
    done = on(machine, f"{SERVICES / 'head.sh'} --port 5001; pg_lsclusters -h >$OUT/clusters", KTRAIN_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert (machine / "calls").read_text() == f"serve --detach --port 5001 {url}\n"
    assert (machine / "clusters").read_text() == ""


def test_a_head_without_ktrain_is_told_in_a_line(machine: Path) -> None:
    (machine / "bin" / "ktrain").unlink()
    done = on(machine, f"{SERVICES / 'head.sh'}")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "ktrain is not on PATH" in done.stderr


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip(lacking("systemd-analyze is not installed", "systemd"))
    program = tmp_path / "ktrain" / ".venv" / "bin" / "ktrain"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "verify", "--user", "--man=no", str(SERVICES / "ktrain-mlflow.service")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("root", [True, False])
def test_a_machine_without_debians_packages_is_told_and_goes_on(tmp_path: Path, root: bool) -> None:
    script = (ROOT / ".ci" / "packages").read_text()
    assert "rsync:/usr/bin/rsync" in script
    (tmp_path / "packages").write_text(script.replace("/usr/bin/rsync", f"{tmp_path}/nowhere"))
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {0 if root else 1000}\n")
    (tmp_path / "id").chmod(0o755)
    bash = shutil.which("bash") or ""
    done = subprocess.run(
        [bash, "packages"], cwd=tmp_path, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "rsync" in done.stderr and done.stderr.endswith("; the tests that need them are skipped\n")
