"""`ray up` for real: a head and two workers over SSH, a sweep sent from a laptop, and nothing left after `ray down`."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
AXES = (
    "corpus.multi=1 corpus.permute=0 corpus.people=60 corpus.tokenizer=bpe-600 "
    "corpus.pools.birth_years=5 corpus.pools.birth_cities=5 "
    "model.layers=1 model.heads=1 model.width=32 "
    "train.steps=4000 train.warmup=10 train.batch=4 train.context=64 train.windows=cut "
    "readout.steps=20 readout.batch=8 readout.recall_gate=0"
)
"""One cell of two, small enough to train in seconds, long enough to be stopped meanwhile."""
EVERY = 40
"""Steps between two lines of a curve; the first line of a training from the beginning is there."""
SUBMIT = f"submit demo {AXES} --no-compile --checkpoint-seconds 0.5"
SERVICES = (ROOT / "cluster" / "services" / "head.sh").is_file() and Path("/usr/lib/postgresql").is_dir()


class Cluster:
    """A cluster that is up, and its user, who sits at the laptop."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    def do(self, command: str, *, code: int = 0, host: str = "laptop", **environment: str) -> str:
        """What a command says, which must end with `code`."""
        done = self.lab.run(host, command, PYTHONPATH=str(ROOT), RAY_USAGE_STATS_ENABLED="0", **environment)
        assert done.returncode == code, f"{command}\n{done.stdout}"
        said: str = done.stdout
        return said

    def ktrain(self, words: str, *, code: int = 0, **environment: str) -> str:
        return self.do(f"python -m sweeps.cli {words} --cluster cluster.yaml", code=code, **environment)


def edited(lab: Any) -> str:
    """The shipped file with its four lines edited, and what is installed here in place of an installation."""
    text = (ROOT / "cluster" / "local.yaml").read_text()
    head, *workers = (address for name, address in lab.addresses.items() if name != "laptop")
    for old, new in {
        "your-head": head,
        "your-worker, your-other-worker": ", ".join(workers),
        "ssh_user: your-user": "ssh_user: root",
        "/your/shared/folder": lab.shared,
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    tree = yaml.safe_load(text)
    assert tree["setup_commands"].pop() == "make -C ~/ktrain install"
    # Compiled code is taken from here too, and the command is there even where the project is not installed.
    command = shlex.quote('#!/bin/sh\nexec python -m sweeps.cli "$@"\n')
    tree["setup_commands"] += [
        f"ln -sfn {sys.prefix} ~/ktrain/.venv",
        f"mkdir -p ~/.cache {ROOT}/.cache && ln -sfn {ROOT}/.cache ~/.cache/ktrain",
        f"mkdir -p ~/bin && printf %s {command} > ~/bin/ktrain && chmod +x ~/bin/ktrain",
        "echo 'export PATH=$PATH:~/bin PYTHONPATH=~/ktrain' >> ~/.bashrc",
    ]
    if not SERVICES:
        del tree["head_setup_commands"][:]
        tree["head_start_ray_commands"] = [c for c in tree["head_start_ray_commands"] if "services" not in c]
    return str(yaml.safe_dump(tree))


@pytest.fixture(scope="module")
def cluster(lab: Any) -> Iterator[Cluster]:
    """The cluster, brought up as a user would."""
    made, home = Cluster(lab), lab.home("laptop")
    (home / "key.pem").rename(home / ".ssh" / "ktrain")
    (home / "cluster.yaml").write_text(edited(lab))
    made.do("ray get-auth-token --generate > /dev/null && chmod 600 .ray/auth_token")
    made.do(f"cd {ROOT} && python -m sweeps.cli cluster check /root/cluster.yaml")
    # Ray gives a head half a minute to start, which a machine that is busy may not manage at once.
    again = f"cd {ROOT} && for _ in 1 2 3; do ray up --yes /root/cluster.yaml && exit; done; exit 1"
    made.do(again)

    def up() -> bool:
        return "3 local.cluster.node" in made.do(". .bashrc; ray status", host="head")

    # The question takes seconds of a core, which the nodes that start need.
    lab.until(up, "a head and two workers", every=3.0)
    yield made


def test_the_head_trains_nothing_and_its_dashboard_is_seen_by_nobody(cluster: Cluster) -> None:
    listed = json.loads(cluster.do(". .bashrc; ray list nodes --format json 2> /dev/null", host="head"))
    totals = {node["is_head_node"]: node["resources_total"] for node in listed}
    assert len(listed) == 3 and "CPU" not in totals[True] and totals[True]["driver_slot"] == 1000
    assert totals[False]["CPU"] > 0 and "driver_slot" not in totals[False]
    sockets = cluster.do("ss -tlnH", host="head").splitlines()
    assert [line.split()[3] for line in sockets if line.split()[3].endswith(":8265")] == ["127.0.0.1:8265"]


def test_a_token_is_asked_for(cluster: Cluster) -> None:
    assert "the cluster has another token" in cluster.ktrain("status demo", code=2, RAY_AUTH_TOKEN="wrong")
    assert "the cluster requires its token" in cluster.ktrain("status demo", code=2, HOME="/srv")
    refused = cluster.do("RAY_AUTH_MODE=token RAY_AUTH_TOKEN=wrong ray status --address=10.77.0.3:6379", code=1)
    assert "nvalid" in refused or "nauthenticated" in refused.lower()


def test_the_doctor_finds_nothing_wrong(cluster: Cluster) -> None:
    cluster.do(". .bashrc; cd ~/ktrain && ktrain doctor --address auto", host="head")


def reached(said: str) -> dict[str, list[int]]:
    """The steps of pretraining that a log tells of, by cell."""
    steps_by_cell: dict[str, list[int]] = {}
    for match in re.finditer(r"(\S+): pretrain ([\d,]+)/", said):
        steps_by_cell.setdefault(match[1], []).append(int(match[2].replace(",", "")))
    return steps_by_cell


def test_a_sweep_is_sent_stopped_and_continued(cluster: Cluster) -> None:
    assert "job ktrain-demo-mini-1: sent; this machine is needed no more" in cluster.ktrain(SUBMIT)
    assert "nothing new was sent" in cluster.ktrain(SUBMIT)
    assert "runs and asks for something else" in cluster.ktrain(f"{SUBMIT} seed=1", code=2)

    def log() -> str:
        """What the first job has said, read where the head keeps it."""
        logs = cluster.lab.folder.glob("head/tmp/ray/session_2*/logs/job-driver-ktrain-demo-mini-1.log")
        return "".join(log.read_text() for log in logs)

    def under_way() -> bool:
        """Whether the training has left a resume point behind its first tenth. It may end before its second line."""
        points = cluster.lab.folder.glob("shared/work/pretrain-*/step-*")
        return any(int(point.name.removeprefix("step-").partition("~")[0]) >= 10 * EVERY for point in points)

    cluster.lab.until(under_way, "training")
    stopped = cluster.ktrain("cancel demo")
    assert "job ktrain-demo-mini-1: stopped" in stopped and "continues" in stopped
    assert "stopped; what is done is kept" in log() and ": done" not in log() and "Traceback" not in log()

    assert "job ktrain-demo-mini-2: sent" in cluster.ktrain(SUBMIT)
    said = cluster.ktrain("logs --follow demo")
    assert said.count(": done") == 1 and "Traceback" not in said
    (steps,) = reached(said).values()
    assert steps[0] > 10 * EVERY
    status = cluster.ktrain(f"status demo {AXES}")
    assert "job ktrain-demo-mini-2: succeeded" in status and len(re.findall(r"\bdone\b", status)) == 1


def test_what_is_down_leaves_nothing(cluster: Cluster) -> None:
    cluster.do(f"cd {ROOT} && ray down --yes /root/cluster.yaml")
    hosts = cluster.lab.addresses
    cluster.lab.until(lambda: not any(cluster.lab.processes(host) for host in hosts), "the end of all processes")
    assert "no head of a cluster" in cluster.do(
        "python -m sweeps.cli status demo --address http://127.0.0.1:8265", code=2
    )
