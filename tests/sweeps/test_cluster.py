"""Cluster files: those shipped are right once edited, and each planted fault is named in a line of its own."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ktrain.errors import WrongRequest
from sweeps import cli, cluster

ROOT = Path(__file__).parents[2]
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
        return cluster.check(str(path))

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
        found = faults(edited(name).replace(new, old))
        assert found and all("EDIT" in line or "maxReplicas" in line for line in found)


@pytest.mark.parametrize("name", [name for name in EDITS if "kuberay" not in name])
def test_a_shipped_file_passes_what_ray_up_checks_first(name: str) -> None:
    assert not list(cluster._rays_own(yaml.safe_load(edited(name))))


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
    "name": (lambda t: t.update(cluster_name="My Cluster"), "cluster_name=My Cluster: must be"),
    "provider": (
        lambda t: t["provider"].update(type="awz"),
        "provider.type=awz: must be aws, gcp, local; did you mean aws?",
    ),
    "no provider": (lambda t: t.pop("provider"), "provider.type=None: must be"),
    "region": (lambda t: t["provider"].update(region="eu-centrel-1"), "no such region; did you mean eu-central-1?"),
    "region as a zone": (lambda t: t["provider"].update(region="us-east-1a"), "must be the name of a region"),
    "zone elsewhere": (lambda t: t["provider"].update(availability_zone="us-west-2a"), "does not lie in us-east-1"),
    "no nodes at most": (lambda t: t.update(max_workers=0), "max_workers=0: must be how many"),
    "half a node": (lambda t: t.update(max_workers=1.5), "max_workers=1.5: must be how many"),
    "fewer than none": (
        lambda t: t[KINDS]["gpu"].update(min_workers=-1),
        "gpu.min_workers=-1: must be a number from 0",
    ),
    "least above most": (lambda t: t[KINDS]["gpu"].update(min_workers=9), "min_workers=9: above its max_workers=8"),
    "most above all": (
        lambda t: t[KINDS]["gpu"].update(max_workers=20),
        "max_workers=20: must be at most max_workers=8",
    ),
    "idle for ever": (lambda t: t.update(idle_timeout_minutes=600), "idle_timeout_minutes=600: must be from 1 to 60"),
    "no idle timeout": (lambda t: t.pop("idle_timeout_minutes"), "idle_timeout_minutes=None: must be from 1 to 60"),
    "never scales": (lambda t: t.update(upscaling_speed=0), "upscaling_speed=0: must be above 0"),
    "head type": (lambda t: t.update(head_node_type="haed"), "must be one of gpu, head; did you mean head?"),
    "head works": (lambda t: t[KINDS]["head"]["resources"].update(CPU=8), "resources.CPU=8: must be 0"),
    "head has a GPU": (lambda t: t[KINDS]["head"]["resources"].update(GPU=1), "resources.GPU=1: must be left out"),
    "no driver slot": (lambda t: t[KINDS]["head"]["resources"].pop("driver_slot"), "driver_slot=None: must be a whole"),
    "parts of a slot": (
        lambda t: t[KINDS]["head"]["resources"].update(driver_slot=0.5),
        "driver_slot=0.5: must be a whole",
    ),
    "more heads": (lambda t: t[KINDS]["head"].update(max_workers=2), "head.max_workers=2: must be 0"),
    "head on spot": (
        lambda t: node(t, "head").update(InstanceMarketOptions={"MarketType": "spot"}),
        "the head is on the spot market",
    ),
    "no workers": (lambda t: t[KINDS].pop("gpu"), "there is no type of worker"),
    "worker without GPU": (lambda t: node(t).update(InstanceType="m7i.xlarge"), "has no NVIDIA GPU with bf16"),
    "worker of an old family": (lambda t: node(t).update(InstanceType="g4dn.xlarge"), "has no NVIDIA GPU with bf16"),
    "worker's type misspelt": (lambda t: node(t).update(InstanceType="g6f.xlarge"), "; did you mean g6"),
    "worker's type without size": (lambda t: node(t).update(InstanceType="g6e"), "must be a family and a size"),
    "worker on ARM": (lambda t: node(t).update(InstanceType="g5g.xlarge"), "has an ARM processor"),
    "no type": (lambda t: node(t).pop("InstanceType"), "InstanceType=None: must be a family and a size"),
    "head with GPUs": (lambda t: node(t, "head").update(InstanceType="g6e.xlarge"), "never used on the head"),
    "market": (
        lambda t: node(t).update(InstanceMarketOptions={"MarketType": "sport"}),
        "must be spot; did you mean spot?",
    ),
    "no profile": (lambda t: node(t).pop("IamInstanceProfile"), "IamInstanceProfile: missing"),
    "Ray's old system": (lambda t: node(t).update(ImageId="latest_dlami"), "ImageId=latest_dlami: must be ami-"),
    "keys for any process": (lambda t: node(t).pop("MetadataOptions"), "HttpTokens: must be required"),
    "small disk": (
        lambda t: node(t).update(BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 30}}]),
        "VolumeSize=30: must be at least 100 GB",
    ),
    "key without name": (lambda t: t["auth"].update(ssh_private_key="~/.ssh/ktrain"), "KeyName: missing beside"),
    "no such key": (
        lambda t: t["auth"].update(ssh_private_key="~/.ssh/mine"),
        "ssh_private_key=~/.ssh/mine: no such file",
    ),
    "nobody logs in": (lambda t: t["auth"].pop("ssh_user"), "auth.ssh_user: missing"),
    "no group": (
        lambda t: node(t, "head").pop("SecurityGroupIds"),
        "Ray would make a group that opens SSH to the world",
    ),
    "group by name": (lambda t: node(t).update(SecurityGroupIds=["ktrain"]), "must be a list of ids such as sg-"),
    "SSH for the world": (
        lambda t: t["provider"].update(security_group=opened("0.0.0.0/0")),
        "0.0.0.0/0: opens ports 22 to 22 to the world",
    ),
    "half the world": (lambda t: t["provider"].update(security_group=opened("128.0.0.0/1")), "to the world"),
    "dashboard for one": (
        lambda t: t["provider"].update(security_group=opened("203.0.113.7/32", 8265)),
        "opens ports 8265 to 8265; must be 22",
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
        "file_mounts.~/x=nothing: nothing there",
    ),
    "mount of everything": (lambda t: t["file_mounts"].update({"~/x": "."}), "which would go to all nodes"),
    "mount of keys": (lambda t: t["file_mounts"].update({"~/.ssh": "~/.ssh"}), "do not go to nodes by a cluster file"),
    "history goes along": (lambda t: t.update(rsync_exclude=["results", "*.env"]), "rsync_exclude: .git is missing"),
    "no set-up": (lambda t: t.pop("setup_commands"), "setup_commands: missing, so Ray would run its own"),
    "empty set-up": (lambda t: t.update(setup_commands=[]), "setup_commands: empty"),
    "one command": (lambda t: t.update(setup_commands="make"), "setup_commands: must be a list of shell commands"),
    "no head start": (lambda t: t.pop("head_start_ray_commands"), "head_start_ray_commands: missing"),
    "Ray not started": (lambda t: t.update(worker_start_ray_commands=["ray stop"]), "must have one `ray start`, has 0"),
    "Ray not stopped": (lambda t: t["head_start_ray_commands"].pop(0), "`ray stop` must come before"),
    "option of ray start": (lambda t: start(t, "--num-cpus", "--num-cpu"), "--num-cpu: `ray start` has no such option"),
    "no autoscaler": (
        lambda t: start(t, "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        "there will be no workers",
    ),
    "head trains": (lambda t: start(t, "--num-cpus=0", "--num-cpus=8"), "--num-cpus=8: must be --num-cpus=0"),
    "dashboard for all": (lambda t: start(t, "host=127.0.0.1", "host=0.0.0.0"), "can run anything there"),
    "dashboard elsewhere": (lambda t: start(t, "port=8265", "port=8266"), "must be 8265, where ktrain's tunnel ends"),
    "slots are no JSON": (lambda t: start(t, "'{\"driver_slot\":1000}'", "driver_slot=9"), "must be JSON, such as"),
    "few slots": (lambda t: start(t, "1000", "1"), "driver_slot=1: must be a whole number"),
    "ports differ": (
        lambda t: start(t, "--port=6379", "--port=6380"),
        "--address has port 6379, the head has --port=6380",
    ),
    "two heads": (lambda t: start(t, "--address=$RAY_HEAD_IP:6379", "--head", "worker"), "a worker joins the head"),
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
    "container without name": (lambda t: t["docker"].pop("container_name"), "docker.container_name: missing"),
    "container without image": (lambda t: t["docker"].pop("image"), "docker.image: missing"),
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
        "initialization_commands build ktrain:0.1.0",
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
    "no bucket": (
        lambda t: t.update(setup_commands=["echo KTRAIN_STORE=s3:///x > ~/.config/ktrain/store.env"]),
        "nothing is not the name of a bucket",
    ),
    "MLflow for all": (
        lambda t: t["head_start_ray_commands"].insert(1, "mlflow server --host 0.0.0.0"),
        "listens on all",
    ),
    "types are a list": (lambda t: t.update({KINDS: []}), "must be one of"),
    "resources are words": (
        lambda t: t[KINDS]["gpu"].update(resources={"GPU": "one"}),
        "available_node_types.gpu.resources",
    ),
}


def broken(name: str, change: Callable[[Tree], object]) -> str:
    tree = copy.deepcopy(yaml.safe_load(edited(name)))
    change(tree)
    return yaml.safe_dump(tree)


@pytest.mark.parametrize("kind", AWS)
def test_each_fault_of_a_file_for_aws_is_named(kind: str, faults: Callable[[str], list[str]]) -> None:
    change, said = AWS[kind]
    found = faults(broken("cluster.yaml", change))
    assert any(said in line for line in found), found
    assert len(found) <= 3 and all(line and "\n" not in line and len(line) < 300 for line in found), found


OTHERS: dict[str, tuple[str, Callable[[Tree], object], str]] = {
    "head is a worker": ("local", lambda t: t["provider"].update(worker_ips=["10.0.0.1"]), "10.0.0.1 is the head too"),
    "worker twice": ("local", lambda t: t["provider"].update(worker_ips=["a", "a"]), "a stands twice"),
    "no workers": ("local", lambda t: t["provider"].update(worker_ips=[]), "must be a list of at least one machine"),
    "two heads": ("local", lambda t: t["provider"].update(head_ip=["a", "b"]), "must be the address of one machine"),
    "workers left out": ("local", lambda t: t.update(max_workers=1), "max_workers=1: there are 2 in worker_ips"),
    "second autoscaler": ("local", lambda t: start(t, "RAY_enable_autoscaler_v2=0 ", ""), "or a machine is left out"),
    "types": ("local", lambda t: t.update({KINDS: {"gpu": {}}}), "not for provider.type=local"),
    "relative store": (
        "local",
        lambda t: t["setup_commands"].__setitem__(1, "echo KTRAIN_STORE=results > ~/.config/ktrain/store.env"),
        "KTRAIN_STORE=results: must be",
    ),
    "no key": ("local", lambda t: t["auth"].update(ssh_private_key="~/k"), "ssh-keygen -t ed25519 -f ~/k makes one"),
    "zone elsewhere": (
        "gcp",
        lambda t: t["provider"].update(region="europe-west4"),
        "does not lie in region=europe-west4",
    ),
    "project": ("gcp", lambda t: t["provider"].update(project_id="P"), "must be a project's id"),
    "no GPU": ("gcp", lambda t: node(t).update(machineType="n2-standard-4"), "has no GPU; such as g2-standard-4"),
    "GPU undeclared": ("gcp", lambda t: t[KINDS]["gpu"].update(resources={"CPU": 4}), "resources.GPU: missing"),
    "head with GPU": ("gcp", lambda t: node(t, "head").update(machineType="g2-standard-4"), "never used on the head"),
    "head on spot": ("gcp", lambda t: node(t, "head").update(scheduling={"preemptible": True}), "on the spot market"),
    "open network": ("gcp", lambda t: node(t).pop("networkInterfaces"), "SSH is open to the world"),
    "subnetwork elsewhere": (
        "gcp",
        lambda t: node(t).update(networkInterfaces=[{"subnetwork": "projects/x/regions/y/subnetworks/z"}]),
        "not of lives-0815 in us-central1",
    ),
    "key in the file": ("gcp", lambda t: t["provider"].update(gcp_credentials={"type": "x"}), "credentials stand in"),
    "store of another cloud": (
        "gcp",
        lambda t: t["setup_commands"].__setitem__(1, "echo KTRAIN_STORE=s3://people/x > x"),
        "must be gs://...",
    ),
    "kind": ("kuberay", lambda t: t.update(kind="RayClustre"), 'kind="RayClustre": must be "RayCluster"'),
    "field": ("kuberay", lambda t: t["spec"].update(workerGroupSpec=[]), "did you mean workerGroupSpecs?"),
    "no authentication": ("kuberay", lambda t: t["spec"].pop("authOptions"), "'authOptions' is a required property"),
    "authentication off": ("kuberay", lambda t: t["spec"]["authOptions"].update(mode="disabled"), 'must be "token"'),
    "another Ray": ("kuberay", lambda t: t["spec"].update(rayVersion="2.9.0"), "rayVersion=2.9.0: must be"),
    "open service": ("kuberay", lambda t: t["spec"]["headGroupSpec"].update(serviceType="LoadBalancer"), "ClusterIP"),
    "open ingress": ("kuberay", lambda t: t["spec"]["headGroupSpec"].update(enableIngress=True), "must be false"),
    "head trains": (
        "kuberay",
        lambda t: t["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": "4"}),
        'num-cpus=4: must be "0"',
    ),
    "number for text": (
        "kuberay",
        lambda t: t["spec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        "0 is not of type 'string'",
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
    found = faults(broken(f"cluster/{name}.yaml", change))
    assert any(said in line for line in found), found
    assert len(found) <= 3 and all("\n" not in line for line in found), found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "not YAML: "),
        ("a: 1\na: 2", "not YAML: a stands twice"),
        ("\ta: 1", "not YAML: "),
        ("- a", "must be a mapping of fields, this is list"),
        ("", "must be a mapping of fields, this is NoneType"),
    ],
)
def test_what_is_no_cluster_file_is_refused(text: str, said: str, faults: Callable[[str], list[str]]) -> None:
    with pytest.raises(WrongRequest, match=re.escape(said)):
        faults(text)


def test_a_readable_token_is_a_fault(tmp_path: Path, faults: Callable[[str], list[str]]) -> None:
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    (found,) = faults(edited("cluster.yaml"))
    assert "others may read it; chmod 600" in found


def test_the_command_prints_a_line_for_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(edited("cluster.yaml"))
    assert cli.main(["cluster", "check", str(path)]) == 0
    assert "nothing wrong is seen" in capsys.readouterr().out
    path.write_text(broken("cluster.yaml", lambda t: (t.update(max_workers=0), t.pop("setup_commands"))))
    assert cli.main(["cluster", "check", str(path)]) == 2
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3 and all(line.startswith(f"{path}: ") for line in out)
    assert cli.main(["cluster", "check"]) == 2
    assert "your-region is still to be replaced (EDIT 2)" in capsys.readouterr().out
    assert cli.main(["cluster", "check", "clutser.yaml"]) == 2
    assert "no such file; did you mean cluster.yaml?" in capsys.readouterr().err


def test_a_files_store_is_known() -> None:
    assert cluster.store("cluster.yaml") == "s3://your-bucket/ktrain"
