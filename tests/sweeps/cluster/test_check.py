"""Cluster files: those shipped are right once edited, and each planted fault is named in a line of its own."""

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrain.errors import WrongRequest
from sweeps import cli
from sweeps.cluster import check, ray_start
from sweeps.cluster.file import ClusterFile

ROOT = Path(__file__).parents[3]
EDITS = {
    "cluster.yaml": {
        "max_workers: 0 ": "max_workers: 8 ",
        "your-region": "us-east-1",
        "sg-your-group": "sg-0123456789abcdef0",
        "your-bucket": "people",
    },
    "cluster/local.yaml": {
        "your-head": "10.0.0.1",
        "your-worker, your-other-worker": "10.0.0.2, 10.0.0.3",
        "ssh_user: your-user": "ssh_user: lab",
        "/your/shared/folder": "/srv/ktrain",
    },
    "cluster/gcp.yaml": {
        "max_workers: 0 ": "max_workers: 8 ",
        "project_id: your-project": "project_id: lives-0815",
        "projects/your-project": "projects/lives-0815",
        "your-bucket": "people",
    },
    "cluster/kuberay.yaml": {
        "your-registry": "registry.example/lab",
        "your-bucket": "people",
        "your-mlflow": "mlflow",
        "maxReplicas: 0": "maxReplicas: 8",
    },
}
"""What a user says on the lines that are marked."""
Tree = dict[str, Any]


@pytest.fixture(autouse=True)
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has a token and a key, in the project's folder."""
    for name in (".ray/auth_token", ".ssh/ktrain"):
        path = tmp_path / name
        path.parent.mkdir()
        path.touch(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)


def edited(name: str) -> str:
    text = (ROOT / name).read_text()
    for old, new in EDITS[name].items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[str], list[str]]:
    """The faults of a text as a cluster file."""

    def of(text: str) -> list[str]:
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return check.check(str(path))

    return of


@pytest.mark.parametrize("name", EDITS)
def test_a_shipped_file_is_right_when_its_four_marked_lines_are_edited(
    name: str, faults: Callable[[str], list[str]]
) -> None:
    shipped = (ROOT / name).read_text()
    marked = re.findall(r"# EDIT (\d)", shipped)
    assert marked == ["1", "2", "3", "4"]
    assert faults(edited(name)) == []
    changed = zip(shipped.splitlines(), edited(name).splitlines(), strict=True)
    assert all("# EDIT" in old for old, new in changed if old != new)
    # Each line by itself is missed.
    for old, new in EDITS[name].items():
        lines = faults(edited(name).replace(new, old))
        assert lines and all("EDIT" in line or "maxReplicas" in line for line in lines)


@pytest.mark.parametrize("name", [name for name in EDITS if "kuberay" not in name])
def test_a_shipped_file_passes_what_ray_up_checks_first(name: str) -> None:
    assert not list(check._ray_faults(yaml.safe_load(edited(name))))


def node(tree: Tree, name: str = "gpu") -> Tree:
    config: Tree = tree["available_node_types"][name]["node_config"]
    return config


def start(tree: Tree, old: str, new: str, role: str = "head") -> None:
    lines = tree[f"{role}_start_ray_commands"]
    assert any(old in line for line in lines)
    tree[f"{role}_start_ray_commands"] = [line.replace(old, new) for line in lines]


def opened(address: str, port: int = 22) -> Tree:
    return {
        "IpPermissions": [{"FromPort": port, "ToPort": port, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": address}]}]
    }


KINDS = "available_node_types"
AWS: dict[str, tuple[Callable[[Tree], object], str]] = {
    "unknown field": (lambda t: t.update(max_worker=3), "max_worker: no such field; did you mean max_workers?"),
    "unknown field of a type": (lambda t: t[KINDS]["gpu"].update(ressources={}), "did you mean resources?"),
    "provider": (
        lambda t: t["provider"].update(type="awz"),
        "provider.type=awz: must be aws, gcp, local; did you mean aws?",
    ),
    "no provider": (lambda t: t.pop("provider"), "provider.type=None: must be"),
    "no nodes at most": (lambda t: t.update(max_workers=0), "max_workers=0: must be how many"),
    "half a node": (lambda t: t.update(max_workers=1.5), "max_workers: 1.5 is not of type 'integer'"),
    "least above most": (lambda t: t[KINDS]["gpu"].update(min_workers=9), "smaller than the sum of `min_workers`"),
    "idle for ever": (lambda t: t.update(idle_timeout_minutes=600), "idle_timeout_minutes=600: must be from 1 to 60"),
    "no idle timeout": (lambda t: t.pop("idle_timeout_minutes"), "idle_timeout_minutes=None: must be from 1 to 60"),
    "idle for ever by type": (
        lambda t: t[KINDS]["gpu"].update(idle_timeout_s=99_999),
        "gpu.idle_timeout_s=99999: must be from 60 to 3600",
    ),
    "head type": (lambda t: t.update(head_node_type="haed"), "`head_node_type` must be one of `available_node_types`"),
    "head works": (lambda t: t[KINDS]["head"]["resources"].update(CPU=8), "resources.CPU=8: must be 0"),
    "head has a GPU": (lambda t: t[KINDS]["head"]["resources"].update(GPU=1), "resources.GPU=1: must be left out"),
    "no driver slot": (
        lambda t: t[KINDS]["head"]["resources"].pop("driver_slot"),
        "driver_slot=None: must be one a trial",
    ),
    "parts of a slot": (
        lambda t: t[KINDS]["head"]["resources"].update(driver_slot=0.5),
        "driver_slot: 0.5 is not of type 'integer'",
    ),
    "more heads": (lambda t: t[KINDS]["head"].update(max_workers=2), "head.max_workers=2: must be 0"),
    "head on spot": (
        lambda t: node(t, "head").update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is on the spot market",
    ),
    "no workers": (lambda t: t[KINDS].pop("gpu"), "must have a head and at least one type of worker"),
    "worker without GPU": (lambda t: node(t).update(InstanceType="m7i.xlarge"), "has no NVIDIA GPU with bf16"),
    "worker of an old family": (lambda t: node(t).update(InstanceType="g4dn.xlarge"), "has no NVIDIA GPU with bf16"),
    "worker's type misspelt": (lambda t: node(t).update(InstanceType="g6f.xlarge"), "; did you mean g6"),
    "worker on ARM": (lambda t: node(t).update(InstanceType="g5g.xlarge"), "has an ARM processor"),
    "no type": (lambda t: node(t).pop("InstanceType"), "InstanceType=None: has no NVIDIA GPU"),
    "head with GPUs": (lambda t: node(t, "head").update(InstanceType="g6e.xlarge"), "which the head never uses"),
    "no profile": (lambda t: node(t).pop("IamInstanceProfile"), "IamInstanceProfile: missing"),
    "Ray's old system": (lambda t: node(t).update(ImageId="latest_dlami"), "ImageId=latest_dlami: must be ami-"),
    "keys for any process": (lambda t: node(t).pop("MetadataOptions"), "HttpTokens: must be required"),
    "small disk": (
        lambda t: node(t).update(BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30}}]),
        "VolumeSize=30: must be at least 100 GB",
    ),
    "no such key": (
        lambda t: t["auth"].update(ssh_private_key="~/.ssh/mine"),
        "ssh_private_key=~/.ssh/mine: no such file",
    ),
    "nobody logs in": (lambda t: t["auth"].pop("ssh_user"), "auth.ssh_user: missing"),
    "no group": (
        lambda t: node(t, "head").pop("SecurityGroupIds"),
        "Ray would make one that opens SSH to all",
    ),
    "SSH for the world": (
        lambda t: t["provider"].update(security_group=opened("0.0.0.0/0")),
        "0.0.0.0/0: opens ports 22 to 22 to the world",
    ),
    "half the world": (lambda t: t["provider"].update(security_group=opened("128.0.0.0/1")), "to the world"),
    "dashboard for one": (
        lambda t: t["provider"].update(security_group=opened("203.0.113.7/32", 8265)),
        "opens ports 8265 to 8265; must be 22",
    ),
    "the world in other words": (
        lambda t: t["provider"].update(security_group=opened("203.0.113.7/0")),
        "203.0.113.7/0: opens ports 22 to 22 to the world",
    ),
    "disks are words": (
        lambda t: node(t).update(BlockDeviceMappings=None),
        "BlockDeviceMappings: VolumeSize=0: must be at least 100 GB",
    ),
    "not an address": (
        lambda t: t["provider"].update(security_group=opened("me")),
        "must be an address with its prefix",
    ),
    "keys in the file": (
        lambda t: t["provider"].update(aws_credentials={"aws_access_key_id": "x"}),
        "provider.aws_credentials: credentials stand in the file",
    ),
    "access key": (
        lambda t: t["setup_commands"].append("export AWS_ACCESS_KEY_ID=AKIA" + "ABCDEFGH12345678"),
        "an access key of AWS stands in the file",
    ),
    "password": (
        lambda t: t["setup_commands"].append("echo MLFLOW_TRACKING_PASSWORD=correct-horse >> ~/.bashrc"),
        "setup_commands[2]: a secret stands in the file",
    ),
    "password in an address": (
        lambda t: t["setup_commands"].append("mlflow db upgrade postgresql://me:horse@localhost/mlflow"),
        "a password in an address stands in the file",
    ),
    "the token": (
        lambda t: t["docker"].update(run_options=["--env RAY_AUTH_TOKEN=0123456789abcdef"]),
        "docker.run_options[0]: a secret stands in the file",
    ),
    "no token": (lambda t: t["file_mounts"].pop("~/.ray/auth_token"), "~/.ray/auth_token is missing"),
    "token not made": (
        lambda t: t["file_mounts"].update({"~/.ray/auth_token": "~/none"}),
        "no such file; `ray get-auth-token --generate` makes it",
    ),
    "no authentication": (lambda t: start(t, "ray start", "RAY_AUTH_MODE=disabled ray start"), "must be token"),
    "mount of nothing": (
        lambda t: t["file_mounts"].update({"~/x": "nothing"}),
        "file_mounts.~/x=nothing: no such file or folder",
    ),
    "mount of everything": (lambda t: t["file_mounts"].update({"~/x": "."}), "which would go to all nodes"),
    "mount of keys": (lambda t: t["file_mounts"].update({"~/.ssh": "~/.ssh"}), "do not go to nodes by a cluster file"),
    "history goes along": (
        lambda t: t.update(rsync_exclude=["results", "*.env"]),
        "rsync_exclude: .git is missing, and would go to all nodes",
    ),
    "no set-up": (lambda t: t.pop("setup_commands"), "setup_commands: missing, so Ray would run its own"),
    "empty set-up": (lambda t: t.update(setup_commands=[]), "none of them says KTRAIN_STORE="),
    "one command": (lambda t: t.update(setup_commands="make"), "setup_commands: 'make' is not of type 'array'"),
    "no head start": (lambda t: t.pop("head_start_ray_commands"), "head_start_ray_commands: missing"),
    "Ray not started": (lambda t: t.update(worker_start_ray_commands=["ray stop"]), "must have one `ray start`, has 0"),
    "Ray not stopped": (lambda t: t["head_start_ray_commands"].pop(0), "`ray stop` must come before"),
    "option of ray start": (
        lambda t: start(t, "--num-cpus", "--num-cpu"),
        "--num-cpus is missing: must be --num-cpus=0",
    ),
    "no autoscaler": (
        lambda t: start(t, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        "there will be no workers",
    ),
    "head trains": (lambda t: start(t, "--num-cpus=0", "--num-cpus=8"), "--num-cpus=8: must be --num-cpus=0"),
    "dashboard for all": (lambda t: start(t, "host=127.0.0.1", "host=0.0.0.0"), "can run anything there"),
    "slots are no JSON": (
        lambda t: start(t, "'{\"driver_slot\":1000}'", "driver_slot=9"),
        "must be such as '{\"driver_slot\":1000}'",
    ),
    "few slots": (lambda t: start(t, "1000", "1"), "one slot a trial"),
    "ports differ": (
        lambda t: start(t, "--port=6379", "--port=6380"),
        "--address has port 6379, the head has --port=6380",
    ),
    "two heads": (
        lambda t: start(t, "--address=$RAY_HEAD_IP:6379", "--head", "worker"),
        "--address=None: must be $RAY_HEAD_IP:6379",
    ),
    "fixed head": (lambda t: start(t, "$RAY_HEAD_IP", "10.0.0.1", "worker"), "must be $RAY_HEAD_IP:6379"),
    "slots on workers": (
        lambda t: start(t, "ray start", "ray start --resources='{\"driver_slot\":9}'", "worker"),
        "drivers must not stand on nodes that may vanish",
    ),
    "other Ray": (lambda t: t["setup_commands"].append("pip install 'ray[default]==2.9.0'"), "as here"),
    "any torch": (lambda t: t["setup_commands"].append("pip install -U torch"), "torch without a version"),
    "nightly wheel": (
        lambda t: t["setup_commands"].append("pip install ray-3.0.0.dev0-cp310-cp310-manylinux2014_x86_64.whl"),
        "installs a wheel of Ray by its address",
    ),
    "image of another Ray": (
        lambda t: (t["docker"].update(image="rayproject/ray:2.9.0-gpu"), t["initialization_commands"].pop()),
        "rayproject/ray:2.9.0-gpu: must be Ray",
    ),
    "no container": (lambda t: t.update(docker={}), "docker: missing"),
    "container without name": (lambda t: t["docker"].pop("container_name"), "Must provide a container & image name"),
    "container without image": (lambda t: t["docker"].pop("image"), "Must provide a container & image name"),
    "image of any version": (
        lambda t: (t["docker"].update(image="lab/ktrain:latest"), t["initialization_commands"].pop()),
        "docker.image=lab/ktrain:latest: must have a version",
    ),
    "image that nobody makes": (
        lambda t: t["initialization_commands"].pop(),
        "names no registry, and no command builds it",
    ),
    "image built as another": (
        lambda t: t["docker"].update(image="ktrain:0.2.0"),
        "no command builds it; did you mean ktrain:0.1.0?",
    ),
    "two images": (lambda t: t["docker"].update(worker_image="ktrain:0.2.0"), "must be the image of all nodes"),
    "published port": (lambda t: t["docker"].update(run_options=["-p 8265:8265"]), "opens a port of the node"),
    "no store": (lambda t: t["setup_commands"].pop(), "none of them says KTRAIN_STORE="),
    "store of one node": (
        lambda t: t.update(setup_commands=["echo KTRAIN_STORE=/home/ray/results > ~/.config/ktrain/store.env"]),
        "KTRAIN_STORE=/home/ray/results: must be s3://...",
    ),
    "store of another cloud": (
        lambda t: t.update(setup_commands=["echo KTRAIN_STORE=s4://people/x > ~/.config/ktrain/store.env"]),
        "must be s3://..., which all nodes see; did you mean s3?",
    ),
    "two stores": (
        lambda t: t["setup_commands"].append("echo KTRAIN_STORE=s3://others/x > ~/.config/ktrain/store.env"),
        "KTRAIN_STORE has 2 values",
    ),
    "MLflow for all": (
        lambda t: t["head_start_ray_commands"].insert(1, "mlflow server --host 0.0.0.0"),
        "listens on all",
    ),
    "types are a list": (lambda t: t.update({KINDS: []}), "available_node_types: [] is not of type 'object'"),
    "resources are words": (
        lambda t: t[KINDS]["gpu"].update(resources={"GPU": "one"}),
        "available_node_types.gpu.resources",
    ),
}


def broken(name: str, change: Callable[[Tree], object]) -> str:
    tree = copy.deepcopy(yaml.safe_load(edited(name)))
    change(tree)
    return str(yaml.safe_dump(tree))


@pytest.mark.parametrize("kind", AWS)
def test_each_fault_of_a_file_for_aws_is_named(kind: str, faults: Callable[[str], list[str]]) -> None:
    change, said = AWS[kind]
    lines = faults(broken("cluster.yaml", change))
    assert any(said in line for line in lines), lines
    assert len(lines) <= 3 and all(line and "\n" not in line and len(line) < 300 for line in lines), lines


OTHERS: dict[str, tuple[str, Callable[[Tree], object], str]] = {
    "head is a worker": ("local", lambda t: t["provider"].update(worker_ips=["10.0.0.1"]), "10.0.0.1 is the head too"),
    "no workers": ("local", lambda t: t["provider"].update(worker_ips=[]), "must be a list of at least one machine"),
    "two heads": (
        "local",
        lambda t: t["provider"].update(head_ip=["a", "b"]),
        "provider.head_ip: ['a', 'b'] is not of type 'string'",
    ),
    "second autoscaler": ("local", lambda t: start(t, "RAY_enable_autoscaler_v2=0 ", ""), "or a machine is left out"),
    "types": ("local", lambda t: t.update({KINDS: {"gpu": {}}}), "available_node_types"),
    "relative store": (
        "local",
        lambda t: t["setup_commands"].__setitem__(1, "echo KTRAIN_STORE=results > ~/.config/ktrain/store.env"),
        "KTRAIN_STORE=results: must be",
    ),
    "no key": ("local", lambda t: t["auth"].update(ssh_private_key="~/k"), "ssh-keygen -t ed25519 -f ~/k makes one"),
    "no GPU": ("gcp", lambda t: node(t).update(machineType="n2-standard-4"), "has no GPU; such as g2-standard-4"),
    "GPU undeclared": ("gcp", lambda t: t[KINDS]["gpu"].update(resources={"CPU": 4}), "resources.GPU: missing"),
    "head with GPU": (
        "gcp",
        lambda t: node(t, "head").update(machineType="g2-standard-4"),
        "which the head never uses",
    ),
    "head on spot": ("gcp", lambda t: node(t, "head").update(scheduling={"preemptible": True}), "on the spot market"),
    "open network": ("gcp", lambda t: node(t).pop("networkInterfaces"), "SSH is open to the world"),
    "key in the file": ("gcp", lambda t: t["provider"].update(gcp_credentials={"type": "x"}), "credentials stand in"),
    "store of another cloud": (
        "gcp",
        lambda t: t["setup_commands"].__setitem__(1, "echo KTRAIN_STORE=s3://people/x > x"),
        "must be gs://...",
    ),
    "no authentication": ("kuberay", lambda t: t["spec"].pop("authOptions"), 'authOptions.mode=null: must be "token"'),
    "authentication off": ("kuberay", lambda t: t["spec"]["authOptions"].update(mode="disabled"), 'must be "token"'),
    "another Ray": ("kuberay", lambda t: t["spec"].update(rayVersion="2.9.0"), "rayVersion=2.9.0: must be"),
    "another kind": ("kuberay", lambda t: t.update(kind="RayJob"), 'kind="RayJob": must be "RayCluster"'),
    "no workers of a group": (
        "kuberay",
        lambda t: t["spec"]["workerGroupSpecs"][0].pop("maxReplicas"),
        "workerGroupSpecs[0].maxReplicas=None: must be how many",
    ),
    "many machines a replica": (
        "kuberay",
        lambda t: t["spec"]["workerGroupSpecs"][0].update(numOfHosts=4),
        "numOfHosts=4: must be 1",
    ),
    "network of the machine": (
        "kuberay",
        lambda t: t["spec"]["workerGroupSpecs"][0]["template"]["spec"].update(hostNetwork=True),
        "workerGroupSpecs[0]: hostNetwork: opens Ray's ports",
    ),
    "environment of nothing": (
        "kuberay",
        lambda t: t["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0].update(env=None),
        "KTRAIN_STORE=None: must be s3://",
    ),
    "open service": ("kuberay", lambda t: t["spec"]["headGroupSpec"].update(serviceType="LoadBalancer"), "ClusterIP"),
    "open ingress": ("kuberay", lambda t: t["spec"]["headGroupSpec"].update(enableIngress=True), "must be false"),
    "head trains": (
        "kuberay",
        lambda t: t["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": "4"}),
        'num-cpus="4": must be "0"',
    ),
    "no slots": ("kuberay", lambda t: t["spec"]["headGroupSpec"]["rayStartParams"].pop("resources"), "driver_slot"),
    "any version": (
        "kuberay",
        lambda t: t["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(image="lab/ktrain:latest"),
        "must name a registry and a version",
    ),
    "password": (
        "kuberay",
        lambda t: t["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"].append(
            {"name": "X", "value": "MLFLOW_TRACKING_PASSWORD=correct-horse"}
        ),
        "a secret stands in the file",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_each_fault_of_the_other_files_is_named(kind: str, faults: Callable[[str], list[str]]) -> None:
    name, change, said = OTHERS[kind]
    lines = faults(broken(f"cluster/{name}.yaml", change))
    assert any(said in line for line in lines), lines
    assert len(lines) <= 3 and all("\n" not in line for line in lines), lines


STUMBLING: dict[str, tuple[str, Callable[[Tree], object], str]] = {
    "quoted size of a disk": (
        "aws",
        lambda t: node(t, "head").update(BlockDeviceMappings=[{"Ebs": {"VolumeSize": "200"}}]),
        'VolumeSize="200": must be a number of GB, without quotes',
    ),
    "no options of metadata": (
        "aws",
        lambda t: node(t, "head").update(MetadataOptions=None),
        "head.node_config.Metadata",
    ),
    "scheduling as a list": (
        "aws",
        lambda t: node(t, "head").update(scheduling=[{"preemptible": True}]),
        "the head is on the spot market",
    ),
    "scheduling as a text": ("aws", lambda t: node(t, "head").update(scheduling="spot"), "p3.2xlarge: has no NVIDIA"),
    "no configuration": ("aws", lambda t: t[KINDS]["head"].update(node_config=None), "head.node_config.ImageId=None"),
    "disks as texts": ("aws", lambda t: node(t, "head").update(BlockDeviceMappings=["sda"]), "VolumeSize=0: must be"),
    "network as a text": (
        "aws",
        lambda t: t["provider"].update(security_group={"IpPermissions": ["all"]}),
        "provider.security_group.IpPermissions: holds a list, a text or nothing where something else must be",
    ),
    "permissions of nobody": (
        "aws",
        lambda t: t["provider"].update(
            security_group={"IpPermissions": [{"IpRanges": 7}, *opened("0.0.0.0/0")["IpPermissions"]]}
        ),
        "0.0.0.0/0: opens ports 22 to 22 to the world",
    ),
    "interfaces as texts": (
        "gcp",
        lambda t: node(t, "head").update(networkInterfaces=["default"]),
        "open to the world",
    ),
    "scheduling of Google as a list": (
        "gcp",
        lambda t: node(t, "head").update(scheduling=[{"preemptible": True}]),
        "the head is on the spot market",
    ),
}


@pytest.mark.parametrize("kind", STUMBLING)
def test_a_field_of_another_form_hides_no_other_fault(kind: str, faults: Callable[[str], list[str]]) -> None:
    cloud, change, said = STUMBLING[kind]
    tree = copy.deepcopy(yaml.safe_load(edited("cluster.yaml" if cloud == "aws" else f"cluster/{cloud}.yaml")))
    others = ["resources.CPU=8: must be 0"]
    tree[KINDS]["head"]["resources"]["CPU"] = 8
    if cloud == "aws":
        node(tree).update(InstanceType="p3.2xlarge", MetadataOptions={})
        others += [
            "gpu.node_config.InstanceType=p3.2xlarge: has no NVIDIA",
            "gpu.node_config.MetadataOptions.HttpTokens",
        ]
    else:
        node(tree).update(machineType="n2-standard-4")
        others += ["n2-standard-4: has no GPU"]
    change(tree)
    lines = faults(yaml.safe_dump(tree))
    for expected in (said, *others):
        assert any(expected in line for line in lines), (expected, lines)


def test_a_rule_that_stumbles_over_a_group_of_pods_hides_no_other_group(faults: Callable[[str], list[str]]) -> None:
    tree = copy.deepcopy(yaml.safe_load(edited("cluster/kuberay.yaml")))
    groups = tree["spec"]["workerGroupSpecs"]
    groups += [copy.deepcopy(groups[0]), copy.deepcopy(groups[0])]
    groups[0]["maxReplicas"] = "8"
    groups[1]["template"]["spec"]["containers"][0]["resources"] = None
    groups[2]["numOfHosts"] = 4
    lines = faults(yaml.safe_dump(tree))
    assert [line.partition(":")[0] for line in lines] == [
        "spec.workerGroupSpecs[0]", "spec.workerGroupSpecs[1]", "spec.workerGroupSpecs[2].numOfHosts=4",
    ]  # fmt: skip
    assert "not every rule could be applied" in lines[0]


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("", "must be the name or the address of a machine"),
        (None, "must be the name or the address of a machine"),
        ("lab@10.0.0.2", "holds a user"),
        ("ssh://10.0.0.2", "begins with ssh://"),
        ("http://10.0.0.2:8265", "begins with http://"),
        ("10.0.0.2:22", "holds a port"),
        ("10.0.0.2 ", "holds a blank"),
        ("10.0.0.2, 10.0.0.3", "holds a blank"),
        ("10.0.0.300", "is no address"),
        ("10.0.0.2/24", "is no name of a machine"),
        ("0.0.0.0", "is no address of one machine"),
        ("HEAD_IP", "is still to be replaced"),
        ("YOUR_HEAD_NODE_HOSTNAME", "is still to be replaced"),
        ("WORKER_NODE_1_HOSTNAME", "is still to be replaced"),
        ("<worker>", "is still to be replaced"),
        ("$WORKER", "is still to be replaced"),
        ("worker_ip1", "is still to be replaced"),
        ("x.x.x.x", "is still to be replaced"),
        ("192.168.0.x", "is still to be replaced"),
        ("192.0.2.5", "is still to be replaced"),
        ("gpu.example.com", "is still to be replaced"),
    ],
)
def test_a_host_that_no_machine_can_have_is_named(host: str, said: str, faults: Callable[[str], list[str]]) -> None:
    change = lambda t: t["provider"].update(worker_ips=["10.0.0.9", host])  # noqa: E731
    lines = [line for line in faults(broken("cluster/local.yaml", change)) if line.startswith("provider.worker_ips=")]
    assert len(lines) == 1 and said in lines[0], lines
    if host:
        lines = faults(broken("cluster/local.yaml", lambda t: t["provider"].update(head_ip=host)))
        assert any(line.startswith("provider.head_ip=") and said in line for line in lines), lines


@pytest.mark.parametrize(
    "host", ["10.0.0.2", "gpu-1", "worker-host1", "node7.lab.uni-x.edu", "fd00::2", "gpu_box", "x1", "head", "xeon"]
)
def test_a_host_that_a_machine_may_have_is_no_fault(host: str, faults: Callable[[str], list[str]]) -> None:
    assert faults(broken("cluster/local.yaml", lambda t: t["provider"].update(worker_ips=[host]))) == []


def test_a_worker_that_stands_there_twice_is_named(faults: Callable[[str], list[str]]) -> None:
    lines = faults(broken("cluster/local.yaml", lambda t: t["provider"].update(worker_ips=["10.0.0.2", "10.0.0.2"])))
    assert lines == ["provider.worker_ips: 10.0.0.2 stands there twice"]


def test_files_of_kuberay_that_are_no_cluster_are_called_what_they_are(
    faults: Callable[[str], list[str]], tmp_path: Path
) -> None:
    cluster = edited("cluster/kuberay.yaml")
    for kind, words in {
        "RayJob": "ktrain submits its jobs itself",
        "RayService": "it serves",
        "Service": "nothing else",
    }.items():
        (line,) = faults(broken("cluster/kuberay.yaml", lambda t, kind=kind: t.update(kind=kind)))  # type: ignore[misc]
        assert line.startswith(f'kind="{kind}": must be "RayCluster"; ') and words in line
    for first in ("kind: Secret\napiVersion: v1", "kind: RayJob\napiVersion: ray.io/v1", "[a]"):
        kind = first.partition("\n")[0].removeprefix("kind: ").replace("[a]", "no mapping")
        with pytest.raises(WrongRequest, match=rf"holds 2 YAML documents \({kind}, RayCluster\); name a file with one"):
            faults(f"{first}\n---\n{cluster}")
    assert faults(f"---\n{cluster}\n---\n") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not YAML: "),
        ("a: 1\na: 2", "not YAML: a occurs twice"),
        ("\ta: 1", "not YAML: "),
        ("[" * 2000, "not YAML: maximum recursion depth"),
        ("a: " + "9" * 5000, "not YAML: Exceeds the limit"),
        ("- a", "must be a mapping of fields, this is list"),
        ("", "must be a mapping of fields, this is NoneType"),
    ],
)
def test_what_is_no_cluster_file_is_refused(text: str, said: str, faults: Callable[[str], list[str]]) -> None:
    with pytest.raises(WrongRequest, match=re.escape(said)):
        faults(text)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cluster.yaml")
    with pytest.raises(WrongRequest, match="not readable: is no regular file"):
        ClusterFile.read(str(tmp_path / "cluster.yaml"))


def test_a_readable_token_is_a_fault(tmp_path: Path, faults: Callable[[str], list[str]]) -> None:
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    (line,) = faults(edited("cluster.yaml"))
    assert "others may read it; chmod 600" in line


def test_the_command_prints_a_line_for_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(edited("cluster.yaml"))
    assert cli.main(["cluster", "check", str(path)]) == 0
    assert "no faults" in capsys.readouterr().out
    path.write_text(broken("cluster.yaml", lambda t: (t.update(max_workers=0), t.pop("setup_commands"))))
    assert cli.main(["cluster", "check", str(path)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and all(line.startswith(f"{path}: ") for line in out)
    assert cli.main(["cluster", "check"]) == 2
    assert "your-region is still to be replaced (EDIT 2)" in capsys.readouterr().out
    assert cli.main(["cluster", "check", "clutser.yaml"]) == 2
    assert "no such file; did you mean cluster.yaml?" in capsys.readouterr().err


def test_a_files_store_is_known() -> None:
    assert ray_start.store("cluster.yaml") == "s3://your-bucket/ktrain"
