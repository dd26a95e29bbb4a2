"""The AWS file through Ray's own bootstrap, against a server that answers as EC2, IAM and CloudFormation do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
ADDRESS = "203.0.113.7/32"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server, which the environment names to boto3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        yield address
    server.stop()


@pytest.fixture(scope="module")
def stack(aws: str) -> dict[str, str]:
    """What the account's template says that it made."""
    import boto3

    client = boto3.client("cloudformation")
    client.create_stack(
        StackName="ktrain",
        TemplateBody=(ROOT / "cluster" / "aws-account.yaml").read_text(),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[
            {"ParameterKey": "Bucket", "ParameterValue": "people"},
            {"ParameterKey": "Address", "ParameterValue": ADDRESS},
        ],
    )
    (made,) = client.describe_stacks(StackName="ktrain")["Stacks"]
    assert made["StackStatus"] == "CREATE_COMPLETE"
    return {output["OutputKey"]: output["OutputValue"] for output in made["Outputs"]}


@pytest.fixture(scope="module")
def nodes(stack: dict[str, str]) -> dict[str, Any]:
    """The head and a worker, launched by Ray from the file with its four lines edited, as EC2 describes them."""
    import boto3
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    text = (ROOT / "cluster.yaml").read_text()
    for old, new in {
        "max_workers: 0 ": "max_workers: 8 ",
        "your-region": REGION,
        "sg-your-group": stack["SecurityGroup"],
        "s3://your-bucket/ktrain": stack["Store"],
    }.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    config = _bootstrap_config(yaml.safe_load(text), no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name in ("head", "gpu"):
        kind = config["available_node_types"][name]
        tags = {"ray-node-type": "head" if name == "head" else "worker", "ray-launch-config": name}
        tags |= {"ray-user-node-type": name}
        provider.create_node(kind["node_config"], tags, 1)
    instances = [i for r in boto3.client("ec2").describe_instances()["Reservations"] for i in r["Instances"]]
    of = {tag["Value"]: i for i in instances for tag in i["Tags"] if tag["Key"] == "ray-user-node-type"}
    assert len(instances) == 2 and sorted(of) == ["gpu", "head"]
    return {"config": config, **of}


def test_instance_types_exist_and_have_what_the_head_expects(nodes: dict[str, Any]) -> None:
    import boto3

    wanted = {nodes[name]["InstanceType"] for name in ("head", "gpu")}
    types = boto3.client("ec2").describe_instance_types(InstanceTypes=sorted(wanted))["InstanceTypes"]
    assert {t["InstanceType"] for t in types} == wanted
    kinds = nodes["config"]["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "driver_slot": 1000}
    assert kinds["gpu"]["resources"]["GPU"] == 1 and kinds["gpu"]["resources"]["CPU"] >= 4
    assert kinds["gpu"]["max_workers"] == 8 and kinds["gpu"]["min_workers"] == 0 == kinds["head"]["max_workers"]


def test_workers_are_asked_of_the_spot_market_and_the_head_is_not(nodes: dict[str, Any]) -> None:
    assert "InstanceLifecycle" not in nodes["head"]
    assert nodes["gpu"]["InstanceLifecycle"] == "spot"


def test_no_group_lets_the_world_in(nodes: dict[str, Any], stack: dict[str, str]) -> None:
    import boto3

    groups = {g["GroupId"] for name in ("head", "gpu") for g in nodes[name]["SecurityGroups"]}
    assert groups == {stack["SecurityGroup"]}
    (group,) = boto3.client("ec2").describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"]
    opened = [(rule.get("FromPort"), r["CidrIp"]) for rule in group["IpPermissions"] for r in rule["IpRanges"]]
    assert opened == [(22, ADDRESS)]
    assert not any(rule.get("Ipv6Ranges") for rule in group["IpPermissions"])
    assert [p["GroupId"] for rule in group["IpPermissions"] for p in rule["UserIdGroupPairs"]] == sorted(groups)
    # Ray made none of its own, which it would open to the world.
    names = [g["GroupName"] for g in boto3.client("ec2").describe_security_groups()["SecurityGroups"]]
    assert not any(name.startswith("ray-autoscaler") for name in names)


def test_nodes_may_use_the_bucket_and_workers_may_launch_nothing(nodes: dict[str, Any]) -> None:
    import boto3

    iam = boto3.client("iam")
    for name, profile in {"head": "ktrain-head", "gpu": "ktrain-worker"}.items():
        assert nodes[name]["IamInstanceProfile"]["Arn"].endswith(f"/{profile}")
        (role,) = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
        (attached,) = iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]
        version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
        policy = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)["PolicyVersion"]["Document"]
        assert {s["Resource"] for s in policy["Statement"]} == {"arn:aws:s3:::people", "arn:aws:s3:::people/*"}
        own = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        assert own == (["nodes"] if name == "head" else [])


def test_a_file_without_a_group_would_open_ssh_to_the_world(stack: dict[str, str]) -> None:
    """Why `ktrain cluster check` refuses one."""
    import boto3
    from ray.autoscaler._private.commands import _bootstrap_config

    tree = yaml.safe_load((ROOT / "cluster.yaml").read_text().replace("your-region", REGION))
    for kind in tree["available_node_types"].values():
        del kind["node_config"]["SecurityGroupIds"]
    tree["cluster_name"] = "open"
    _bootstrap_config(tree, no_config_cache=True)
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    (made,) = (g for g in groups if g["GroupName"] == "ray-autoscaler-open")
    assert "0.0.0.0/0" in [r["CidrIp"] for rule in made["IpPermissions"] for r in rule["IpRanges"]]


@pytest.mark.parametrize("address", ["0.0.0.0/0", "203.0.113.0/8", "me"])
def test_the_template_opens_ssh_to_nobody_else(aws: str, address: str) -> None:
    import re

    template = yaml.load((ROOT / "cluster" / "aws-account.yaml").read_text(), _Tags)
    assert not re.fullmatch(template["Parameters"]["Address"]["AllowedPattern"], address)
    assert re.fullmatch(template["Parameters"]["Address"]["AllowedPattern"], ADDRESS)


class _Tags(yaml.SafeLoader):
    """YAML with CloudFormation's own tags, which say nothing here."""


_Tags.add_multi_constructor("!", lambda loader, suffix, node: None)
