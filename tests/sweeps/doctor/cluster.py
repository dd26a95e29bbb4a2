"""A cluster of a head without CPUs and two nodes, in processes that end with this one.

Prints its address and the process of each node's raylet as JSON, the head's first, and ends when its standard input
does.
"""

import json
import sys

from ray.cluster_utils import Cluster

SMALL = {"object_store_memory": 100_000_000}

if __name__ == "__main__":
    cluster = Cluster()
    nodes = [cluster.add_node(num_cpus=0, resources={"driver_slot": 1000}, include_dashboard=False, **SMALL)]
    nodes += [cluster.add_node(num_cpus=1, **SMALL) for _ in range(2)]
    cluster.wait_for_nodes()
    raylets = {node.node_id: node.all_processes["raylet"][0].process.pid for node in nodes}
    print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    cluster.shutdown()
