"""Spot notices: a machine that its cloud is about to take away drains its Ray node, so that trials leave in time.

Clouds tell a machine some time before (AWS two minutes, Google half a minute), by an address that only it can ask.
KubeRay drains such nodes itself; of what `ray up` starts nothing does. So each worker runs `ktrain drain-watch`.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ktrain.errors import WrongRequest, nearest

EVERY = 5.0
"""Seconds between two looks, as AWS advises."""
SILENT = 12
"""Looks that the cluster did not answer, one after another, after which there is none to drain any more."""
TIMEOUT = 2.0
"""Seconds. The service is on the machine itself: it answers at once or not at all."""
# A proxy would ask about itself.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Notice:
    """What a cloud says: why, and when it takes the machine, in seconds since the epoch (None: it does not say)."""

    reason: str
    deadline: float | None


class Metadata(Protocol):
    """What a machine can ask about itself."""

    def notice(self) -> Notice | None:
        """What was said so far, the gravest first. Raises `OSError` where nobody answers."""


class Aws:
    """AWS, by sessions (IMDSv2). Its docs: Spot Instance interruption notices, instance rebalance recommendations."""

    def __init__(self, address: str = "http://169.254.169.254") -> None:
        self._address, self._token = address, ""

    def notice(self) -> Notice | None:
        """An interruption with its time, or that one has become likely."""
        if text := self._read("spot/instance-action"):
            about = json.loads(text)
            return Notice(f"spot {about['action']}", datetime.fromisoformat(about["time"]).timestamp())
        return Notice("rebalance recommendation", None) if self._read("events/recommendations/rebalance") else None

    def _read(self, name: str) -> str | None:
        url = f"{self._address}/latest/meta-data/{name}"
        for fresh in (False, True):
            if fresh or not self._token:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                self._token = _ask(f"{self._address}/latest/api/token", lifetime, "PUT") or ""
            try:
                return _ask(url, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                if error.code != 401 or fresh:
                    raise
        return None


class Gcp:
    """Google Cloud. Its docs: Spot VMs, preemption process: the machine has thirty seconds."""

    def __init__(self, address: str = "http://metadata.google.internal") -> None:
        self._address = address

    def notice(self) -> Notice | None:
        """That the machine is being preempted."""
        url = f"{self._address}/computeMetadata/v1/instance/preempted"
        text = _ask(url, {"Metadata-Flavor": "Google"})
        return Notice("spot preempted", time.time() + 30) if text and text.strip() == "TRUE" else None


CLOUDS: dict[str, Callable[..., Metadata]] = {"aws": Aws, "gcp": Gcp}


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer's text; None where there is nothing to be said (404)."""
    try:
        with _open(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def service(cloud: str, address: str | None = None) -> Metadata:
    """The metadata service of this machine; of cloud `auto` the first that answers. Raises `WrongRequest`."""
    if cloud not in (*CLOUDS, "auto"):
        allowed = ["auto", *CLOUDS]
        raise WrongRequest(f"cloud={cloud}: must be one of {', '.join(allowed)}{nearest(cloud, allowed)}")
    reasons = []
    for name in CLOUDS if cloud == "auto" else (cloud,):
        found = CLOUDS[name](address) if address else CLOUDS[name]()
        try:
            found.notice()
        except OSError as error:
            reasons.append(f"{name}: {error}")
        else:
            return found
    raise WrongRequest(f"cloud={cloud}: no metadata service answers ({'; '.join(reasons)})")


def watch(metadata: Metadata, node: "Node", every: float) -> Notice | None:
    """Asks until the machine is about to go, and drains the node; the last notice, or None where there was none when
    the node ended.

    A mere likelihood drains too, and the asking goes on, because a time may follow.
    """
    heard, silent = None, 0
    while silent < SILENT:
        # The service answers late now and then; nothing is lost by asking again.
        with suppress(OSError):
            if (notice := metadata.notice()) and notice.reason != (heard and heard.reason):
                node.drain(notice)
                heard = notice
                if notice.deadline:
                    break
        try:
            silent = 0 if node.lives() else SILENT
        except ConnectionError:
            silent += 1
        time.sleep(every)
    return heard


@dataclass(frozen=True)
class Node:
    """A Ray node by the address of its cluster and its id in hex; the one place that uses Ray's internal client."""

    address: str
    id: str

    @classmethod
    def here(cls) -> "Node":
        """The node of this machine. Raises `WrongRequest` where no Ray runs here."""
        import ray

        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise WrongRequest("drain-watch: no Ray runs on this machine; start it after `ray start`") from None
        context = ray.get_runtime_context()
        found = cls(context.gcs_address, context.get_node_id())
        # A connection would count as a driver at work.
        ray.shutdown()
        return found

    def drain(self, notice: Notice) -> None:
        """Takes no more work, and tells what runs here. Raises `ConnectionError` where the cluster does not answer."""
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((notice.deadline or 0) * 1000)
        with self._cluster() as cluster:
            cluster.drain_node(self.id, DRAIN_NODE_REASON_PREEMPTION, notice.reason, deadline, TIMEOUT)

    def lives(self) -> bool:
        """Whether the cluster counts on it. Raises `ConnectionError` where the cluster does not answer."""
        from ray import NodeID

        with self._cluster() as cluster:
            return bool(cluster.check_alive([NodeID.from_hex(self.id)], TIMEOUT)[0])

    @contextmanager
    def _cluster(self) -> Iterator[Any]:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.exceptions import RpcError

        try:
            yield GcsClient(address=self.address)
        except RpcError as error:
            raise ConnectionError(str(error)) from None


def add(commands: Any) -> None:
    """The command `ktrain drain-watch`."""
    about = "drain this Ray node when its cloud announces that it takes the machine; for worker_start_ray_commands"
    parser: argparse.ArgumentParser = commands.add_parser("drain-watch", help=about, description=about)
    parser.add_argument("--cloud", default="auto", help="aws, gcp or auto (default): whichever answers")
    parser.add_argument("--metadata", help="address of the metadata service (default: the cloud's)")
    parser.add_argument("--address", help="of the cluster, with --node-id (default: the Ray of this machine)")
    parser.add_argument("--node-id", help="of the node, in hex (default: that of this machine)")
    parser.add_argument("--every", type=float, default=EVERY, help="seconds between two looks (default: 5)")
    parser.set_defaults(handler=_drain_watch)


def _drain_watch(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.every < 60:
        raise WrongRequest(f"every={arguments.every:g}: must be above 0 and below 60 seconds")
    if bool(arguments.address) != bool(arguments.node_id):
        raise WrongRequest("drain-watch: --address and --node-id go together")
    metadata = service(arguments.cloud, arguments.metadata)
    node = Node(arguments.address, arguments.node_id) if arguments.address else Node.here()
    print(f"drain-watch: node {node.id[:8]}, every {arguments.every:g} s", flush=True)
    notice = watch(metadata, node, arguments.every)
    print(f"drain-watch: {f'{notice.reason}: drained' if notice else 'the node has ended'}", flush=True)
    return 0
