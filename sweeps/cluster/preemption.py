"""Watches for spot-interruption notices and drains the node, so that its trials checkpoint first.

A cloud announces an interruption (AWS two minutes ahead, Google thirty seconds) at an address that only the machine
itself can reach. KubeRay drains such nodes by itself, but nothing that `ray up` starts does; so each worker of `ray up`
runs `ktrain watch-preemption`.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

from typer import Option

from ktrain.errors import WrongRequest, nearest
from sweeps.options import EXIT_DONE

EVERY = 5.0
"""Seconds between two requests, as AWS recommends."""
MOST_UNANSWERED = 12
"""After this many requests in a row that the cluster does not answer, the watch ends."""
TIMEOUT = 2.0
"""Seconds. The metadata service is local: it answers at once or not at all."""
# Without a proxy, which would return its own metadata.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Notice:
    """An announced interruption: its reason, and its time in seconds since the epoch if the cloud states one."""

    reason: str
    deadline: float | None


class CloudMetadata(Protocol):
    """A cloud's metadata service, which a machine asks about itself."""

    def notice(self) -> Notice | None:
        """The most urgent notice so far, or None. Raises `OSError` if the service does not answer."""


class Aws:
    """AWS by IMDSv2. See its docs on Spot Instance interruption notices and instance rebalance recommendations."""

    def __init__(self, address: str = "http://169.254.169.254") -> None:
        self._address, self._token = address, ""

    def notice(self) -> Notice | None:
        """An interruption with its time, or a recommendation to rebalance: one has become likely."""
        if text := self._read("spot/instance-action"):
            action = json.loads(text)
            return Notice(f"spot {action['action']}", datetime.fromisoformat(action["time"]).timestamp())
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
    """Google Cloud. See its docs on the preemption process of Spot VMs: the machine has thirty seconds."""

    def __init__(self, address: str = "http://metadata.google.internal") -> None:
        self._address = address

    def notice(self) -> Notice | None:
        """A preemption, from the moment that it begins."""
        url = f"{self._address}/computeMetadata/v1/instance/preempted"
        text = _ask(url, {"Metadata-Flavor": "Google"})
        return Notice("spot preempted", time.time() + 30) if text and text.strip() == "TRUE" else None


CLOUDS: dict[str, Callable[..., CloudMetadata]] = {"aws": Aws, "gcp": Gcp}


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The text of the answer, or None for status 404."""
    try:
        with _open(urllib.request.Request(url, headers=headers, method=method), timeout=TIMEOUT) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def service(cloud: str, address: str | None = None) -> CloudMetadata:
    """The metadata service of this machine; `auto` takes the first that answers. Raises `WrongRequest` if none does."""
    if cloud not in (*CLOUDS, "auto"):
        allowed = ["auto", *CLOUDS]
        raise WrongRequest(f"cloud={cloud}: must be one of {', '.join(allowed)}{nearest(cloud, allowed)}")
    reasons = []
    for name in CLOUDS if cloud == "auto" else (cloud,):
        metadata = CLOUDS[name](address) if address else CLOUDS[name]()
        try:
            metadata.notice()
        except OSError as error:
            reasons.append(f"{name}: {error}")
        else:
            return metadata
    raise WrongRequest(f"cloud={cloud}: no metadata service answers ({'; '.join(reasons)})")


def watch(metadata: CloudMetadata, node: "Node", every: float) -> Notice | None:
    """Asks for notices and drains the node; returns the last notice, or None if the node ends first.

    A notice without a deadline drains the node, too, and the watch goes on, because one with a deadline may follow.
    """
    last_notice, unanswered = None, 0
    while unanswered < MOST_UNANSWERED:
        # The service sometimes answers late; the next request makes up for it.
        with suppress(OSError):
            if (notice := metadata.notice()) and notice.reason != (last_notice and last_notice.reason):
                node.drain(notice)
                last_notice = notice
                if notice.deadline:
                    break
        try:
            unanswered = 0 if node.is_alive() else MOST_UNANSWERED
        except ConnectionError:
            unanswered += 1
        time.sleep(every)
    return last_notice


@dataclass(frozen=True)
class Node:
    """A Ray node: the address of its cluster and its id in hex. Only this class uses Ray's internal client."""

    address: str
    id: str

    @classmethod
    def here(cls) -> "Node":
        """The node of this machine. Raises `WrongRequest` if Ray does not run here."""
        import ray

        try:
            ray.init(address="auto", log_to_driver=False)
        except ConnectionError:
            raise WrongRequest("watch-preemption: no Ray runs on this machine; start it after `ray start`") from None
        context = ray.get_runtime_context()
        node = cls(context.gcs_address, context.get_node_id())
        # An open connection would count as a running driver.
        ray.shutdown()
        return node

    def drain(self, notice: Notice) -> None:
        """Stops new work on the node and warns its trials. Raises `ConnectionError` if the cluster is silent."""
        from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

        deadline = int((notice.deadline or 0) * 1000)
        with self._cluster() as cluster:
            cluster.drain_node(self.id, DRAIN_NODE_REASON_PREEMPTION, notice.reason, deadline, TIMEOUT)

    def is_alive(self) -> bool:
        """Whether the cluster considers the node alive. Raises `ConnectionError` if the cluster does not answer."""
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


def watch_preemption(
    cloud: Annotated[str, Option("--cloud", help="aws, gcp or auto, which takes the one that answers.")] = "auto",
    metadata: Annotated[
        str | None, Option("--metadata", metavar="URL", help="The metadata service; without it, the cloud's.")
    ] = None,
    address: Annotated[
        str | None, Option("--address", help="The cluster, with --node-id; without it, the Ray of this machine.")
    ] = None,
    node_id: Annotated[
        str | None, Option("--node-id", help="The node, in hex; without it, that of this machine.")
    ] = None,
    every: Annotated[float, Option("--every", help="Seconds between two requests.")] = EVERY,
) -> int:
    """Watch for spot-interruption notices and drain this Ray node, so that its trials checkpoint first."""
    if not 0 < every < 60:
        raise WrongRequest(f"every={every:g}: must be above 0 and below 60 seconds")
    if bool(address) != bool(node_id):
        raise WrongRequest("watch-preemption: --address and --node-id go together")
    watched = service(cloud, metadata)
    node = Node(address, node_id) if address and node_id else Node.here()
    print(f"watch-preemption: node {node.id[:8]}, every {every:g} s", flush=True)
    notice = watch(watched, node, every)
    print(f"watch-preemption: {f'{notice.reason}: drained' if notice else 'the node has ended'}", flush=True)
    return EXIT_DONE
