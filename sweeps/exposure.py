"""What a cluster file must not give away: secrets, open ports, files of the user's."""

import re
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktrain.errors import nearest

if TYPE_CHECKING:
    from sweeps.cluster import ClusterFile

SECRETS = {
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b": "an access key of AWS",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----": "a private key",
    r"\b\w+://[^\s/:@]+:[^\s/@$]+@": "a password in an address",
    r"(?i)\b\w*(passw(or)?d|secret|token|(api|access)_?key)\w*\s*[=:]\s*[\"']?[^\"'$~/.{\s][^\s\"']{5,}": "a secret",
}
MODE = re.compile(r"(?i)\bRAY_AUTH_MODE\s*[=:]\s*[\"']?(\w+)")
TOKEN = "~/.ray/auth_token"
PRIVATE = (".git", ".ssh", ".aws", ".config", ".env", "results", ".kube")
WORLD = 8
"""An address range this wide or wider is the world."""


def secrets(file: "ClusterFile") -> Iterator[str]:
    """Whatever looks like a secret, without repeating it."""
    for field, text in file.strings():
        for pattern, what in SECRETS.items():
            if re.search(pattern, text):
                yield f"{field}: {what} stands in the file; it belongs into ~/.config/ktrain/secrets.env on the nodes"
                break
    for field in ("provider.aws_credentials", "provider.gcp_credentials"):
        if file.get(field):
            yield f"{field}: credentials stand in the file; leave it out, the usual files of the cloud's tools are read"


def _token(file: "ClusterFile") -> Iterator[str]:
    for field, text in file.strings():
        if (match := MODE.search(text)) and match[1] != "token":
            yield f"{field}: RAY_AUTH_MODE={match[1]}: must be token{nearest(match[1], ['token'])}"
    mounts = file.get("file_mounts") or {}
    if TOKEN not in mounts:
        yield f"file_mounts: {TOKEN} is missing, so the nodes have no token and Ray will not start"
        return
    source = Path(str(mounts[TOKEN])).expanduser()
    if not source.is_file():
        yield f"file_mounts.{TOKEN}={mounts[TOKEN]}: no such file; `ray get-auth-token --generate` makes it"
    elif source.stat().st_mode & 0o077:
        yield f"file_mounts.{TOKEN}={mounts[TOKEN]}: others may read it; chmod 600 {mounts[TOKEN]}"


def _mounts(file: "ClusterFile") -> Iterator[str]:
    for target, source in (file.get("file_mounts") or {}).items():
        path = Path(str(source)).expanduser()
        field = f"file_mounts.{target}={source}"
        if str(target) == TOKEN:
            continue
        if not path.exists():
            yield f"{field}: nothing there; run this from the project's folder"
        elif path.suffix == ".env" or any(part in PRIVATE for part in path.parts):
            yield f"{field}: keys, passwords and results do not go to nodes by a cluster file"
        elif path.is_dir() and (inside := [name for name in PRIVATE if (path / name).exists()]):
            yield f"{field}: holds {inside[0]}, which would go to all nodes; name the folders that they need"
    excluded = file.get("rsync_exclude") or []
    for pattern in (".git", "results", "*.env"):
        if pattern not in excluded:
            yield f"rsync_exclude: {pattern} is missing"
    key = file.get("auth.ssh_private_key")
    if key and not Path(str(key)).expanduser().is_file():
        yield f"auth.ssh_private_key={key}: no such file; ssh-keygen -t ed25519 -f {key} makes one"


def _ingress(file: "ClusterFile") -> Iterator[str]:
    if file.kind() == "aws":
        for rule in file.get("provider.security_group.IpPermissions", []):
            yield from _rule(rule)
        for name, kind in file.get("available_node_types", {}).items():
            field, config = f"available_node_types.{name}.node_config", kind.get("node_config", {})
            groups = config.get("SecurityGroupIds")
            if "NetworkInterfaces" in config:
                continue
            if not groups:
                yield f"{field}.SecurityGroupIds: missing, so Ray would make a group that opens SSH to the world"
            elif not isinstance(groups, list) or not all(re.fullmatch(r"sg-[0-9a-f]{8,17}", str(g)) for g in groups):
                yield f"{field}.SecurityGroupIds={groups}: must be a list of ids such as sg-0123456789abcdef0"
    if file.kind() == "gcp":
        for name, kind in file.get("available_node_types", {}).items():
            field, config = f"available_node_types.{name}.node_config.networkInterfaces", kind.get("node_config", {})
            networks = [str(i.get("subnetwork") or i.get("network")) for i in config.get("networkInterfaces", [])]
            if not networks or any(network.endswith("/default") for network in networks):
                yield f"{field}: must be a network of your own; in Google's default one SSH is open to the world"


def _rule(rule: dict[str, Any]) -> Iterator[str]:
    field, ports = "provider.security_group.IpPermissions", f"{rule.get('FromPort')} to {rule.get('ToPort')}"
    ranges = [r.get("CidrIp") for r in rule.get("IpRanges", [])] + [
        r.get("CidrIpv6") for r in rule.get("Ipv6Ranges", [])
    ]
    for cidr in ranges:
        try:
            wide = ip_network(str(cidr)).prefixlen <= WORLD
        except ValueError:
            yield f"{field}: {cidr}: must be an address with its prefix, such as 203.0.113.7/32"
            continue
        if wide:
            yield f"{field}: {cidr}: opens ports {ports} to the world"
        elif rule.get("FromPort") != 22 or rule.get("ToPort") != 22:
            yield f"{field}: {cidr}: opens ports {ports}; must be 22, SSH, alone, and tunnels for the rest"


def _hosts(file: "ClusterFile") -> Iterator[str]:
    for field, text in file.strings():
        if re.search(r"--(host|dashboard-host|node-ip-address)[= ]0\.0\.0\.0", text) and "--dashboard-host" not in text:
            yield f"{field}: listens on all addresses; must be 127.0.0.1, and a tunnel"


RULES: Sequence[Callable[["ClusterFile"], Iterator[str]]] = (_ingress, _hosts, _token, _mounts, secrets)
