"""Rules against what a cluster file must not give away: secrets, open ports, and the user's own files."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ktrain.errors import nearest
from ktrain.system.home_folder import expanded
from sweeps.cluster.file import ClusterFile, Rule, attempted, listed, mapping
from sweeps.cluster.nodes import node_types

SECRETS = {
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b": "an access key of AWS",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----": "a private key",
    r"\b\w+://[^\s/:@]+:[^\s/@$]+@": "a password in an address",
    r"(?i)\b\w*(passw(or)?d|secret|token|(api|access)_?key)\w*\s*[=:]\s*[\"']?[^\"'$~/.{\s][^\s\"']{5,}": "a secret",
}
MODE = re.compile(r"(?i)\bRAY_AUTH_MODE\s*[=:]\s*[\"']?(\w+)")
ALL_ADDRESSES = re.compile(r"--(host|dashboard-host|node-ip-address)[= ]0\.0\.0\.0")
TOKEN = "~/.ray/auth_token"
PRIVATE = (".git", ".ssh", ".aws", ".config", ".env", "results", ".kube")
WORLD = 8
"""An address range with a prefix this short counts as the whole internet."""


def secrets(file: ClusterFile) -> Iterator[str]:
    """Names every field that looks like a secret, without repeating its value."""
    for field, text in file.strings():
        kinds = (kind for pattern, kind in SECRETS.items() if re.search(pattern, text))
        if kind := next(kinds, None):
            yield f"{field}: {kind} stands in the file; it belongs into ~/.config/ktrain/secrets.env on the nodes"
    for field in ("provider.aws_credentials", "provider.gcp_credentials"):
        if file.get(field):
            yield f"{field}: credentials stand in the file; leave it out, the usual files of the cloud's tools are read"


def _token(file: ClusterFile) -> Iterator[str]:
    for field, text in file.strings():
        if (match := MODE.search(text)) and match[1] != "token":
            yield f"{field}: RAY_AUTH_MODE={match[1]}: must be token{nearest(match[1], ['token'])}"
    mounts = mapping(file.get("file_mounts"))
    if TOKEN not in mounts:
        yield f"file_mounts: {TOKEN} is missing, so the nodes have no token and Ray will not start"
        return
    source = expanded(str(mounts[TOKEN]))
    if not source.is_file():
        yield f"file_mounts.{TOKEN}={mounts[TOKEN]}: no such file; `ray get-auth-token --generate` makes it"
    elif source.stat().st_mode & 0o077:
        yield f"file_mounts.{TOKEN}={mounts[TOKEN]}: others may read it; chmod 600 {mounts[TOKEN]}"


def _mounts(file: ClusterFile) -> Iterator[str]:
    for target, source in mapping(file.get("file_mounts")).items():
        if str(target) != TOKEN:
            yield from _mount(f"file_mounts.{target}={source}", expanded(str(source)))
    excluded = file.get("rsync_exclude") or []
    for pattern in (".git", "results", "*.env"):
        if pattern not in excluded:
            yield f"rsync_exclude: {pattern} is missing, and would go to all nodes"
    key = file.get("auth.ssh_private_key")
    if key and not expanded(str(key)).is_file():
        yield f"auth.ssh_private_key={key}: no such file; ssh-keygen -t ed25519 -f {key} makes one"


def _mount(field: str, source: Path) -> Iterator[str]:
    if not source.exists():
        # Ray notices it only after it has started the head.
        yield f"{field}: no such file or folder; run this from the project's folder"
    elif source.suffix == ".env" or any(part in PRIVATE for part in source.parts):
        yield f"{field}: keys, passwords and results do not go to nodes by a cluster file"
    elif source.is_dir() and (private := [name for name in PRIVATE if (source / name).exists()]):
        yield f"{field}: holds {private[0]}, which would go to all nodes; name the folders that they need"


def _networks(file: ClusterFile) -> Iterator[str]:
    if file.kind() == "aws":
        for rule in listed(file.get("provider.security_group.IpPermissions")):
            yield from attempted("provider.security_group.IpPermissions", _permission(rule))
        for field, _, config, _ in node_types(file):
            if not config.get("SecurityGroupIds") and "NetworkInterfaces" not in config:
                yield f"{field}.node_config.SecurityGroupIds: missing, so Ray would make one that opens SSH to all"
    if file.kind() == "gcp":
        for field, _, config, _ in node_types(file):
            interfaces = map(mapping, listed(config.get("networkInterfaces")))
            networks = [str(i.get("subnetwork") or i.get("network") or "/default") for i in interfaces]
            if not networks or any(network.endswith("/default") for network in networks):
                yield (
                    f"{field}.node_config.networkInterfaces: must be a network of your own; "
                    "in Google's default one SSH is open to the world"
                )


def _permission(rule: dict[str, Any]) -> Iterator[str]:
    """The faults of one entry of `IpPermissions`, AWS's form for who may reach which ports."""
    field, ports = "provider.security_group.IpPermissions", f"{rule.get('FromPort')} to {rule.get('ToPort')}"
    ranges = [r.get("CidrIp") for r in rule.get("IpRanges") or []]
    ranges += [r.get("CidrIpv6") for r in rule.get("Ipv6Ranges") or []]
    for cidr in ranges:
        try:
            # AWS, too, ignores the bits of the address that lie beyond the prefix.
            prefix = ip_network(str(cidr), strict=False).prefixlen
        except ValueError:
            yield f"{field}: {cidr}: must be an address with its prefix, such as 203.0.113.7/32"
            continue
        if prefix <= WORLD:
            yield f"{field}: {cidr}: opens ports {ports} to the world"
        elif rule.get("FromPort") != 22 or rule.get("ToPort") != 22:
            yield f"{field}: {cidr}: opens ports {ports}; must be 22, SSH, alone, and tunnels for the rest"


def _ports(file: ClusterFile) -> Iterator[str]:
    for field, text in file.strings():
        if ALL_ADDRESSES.search(text):
            yield f"{field}: listens on all addresses; must be 127.0.0.1, and a tunnel"
    for field in ("docker.run_options", "docker.head_run_options", "docker.worker_run_options"):
        for option in listed(file.get(field)):
            if re.match(r"(-p|--publish)\b", str(option)):
                yield f"{field}: {option}: opens a port of the node; reach it through an SSH tunnel instead"


RULES: Sequence[Rule] = (_networks, _ports, _token, _mounts, secrets)
