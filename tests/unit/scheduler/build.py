"""Projections of pods and nodes from a few words, made through the same readers as the real ones."""

from edgekube.api import meta
from edgekube.api.catalog import NODE, POD
from edgekube.scheduler.cycle import find_node
from edgekube.scheduler.framework import SKIP
from edgekube.scheduler.snapshot import Cluster, pod_info

_numbers = iter(range(1, 1_000_000))


def pod(
    name="", *, namespace="default", labels=None, cpu="", memory="", ports=(), status=None, deleting=False, images=("busybox",), **spec
):
    number = next(_numbers)
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    containers = [{"name": f"c{i}", "image": image} for i, image in enumerate(images)]
    containers[0] |= {"resources": {"requests": requests}, "ports": [{"containerPort": 1, **port} for port in ports]}
    metadata = {"name": name or f"p{number}", "namespace": namespace, "uid": f"uid-{number}", "labels": labels or {}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    obj = {"metadata": metadata, "spec": {"containers": containers, **spec}, "status": status or {}}
    return pod_info(meta.item_of(POD, meta.encode(obj), number))


def node_item(name, *, labels=None, taints=(), unschedulable=False, images=None, **allocatable):
    capacity = {"cpu": "4", "memory": "8Gi", "pods": "110"} | {key.replace("_", "-"): value for key, value in allocatable.items()}
    reported = [{"names": [image], "sizeBytes": size} for image, size in (images or {}).items()]
    obj = {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {"kubernetes.io/hostname": name} | (labels or {})},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {"allocatable": capacity, "images": reported},
    }
    return meta.item_of(NODE, meta.encode(obj), next(_numbers))


def cluster(*items, pods=()):
    """`pods` are (node name, PodInfo)."""
    found = Cluster()
    for item in items:
        found.set_node(item)
    for name, there in pods:
        found.assume(there, name)
    return found


def verdict(plugin, wanting, world, node=None):
    """The filter's answer for one node (the first unless named), SKIP counted as acceptance."""
    nodes = world.nodes()
    target = next(n for n in nodes if node is None or n.name == node)
    prepared = plugin.prepare(wanting, nodes)
    return None if prepared is SKIP else plugin.filter(wanting, target, prepared)


def scores(plugin, wanting, world):
    """Normalised scores by node name; {} if the plugin has no opinion."""
    nodes = world.nodes()
    prepared = plugin.prepare_score(wanting, nodes, nodes)
    if prepared is SKIP:
        return {}
    raw = [plugin.score(wanting, node, prepared) for node in nodes]
    return dict(zip([node.name for node in nodes], plugin.normalize(raw, prepared), strict=True))


__all__ = ("cluster", "find_node", "node_item", "pod", "scores", "verdict")
