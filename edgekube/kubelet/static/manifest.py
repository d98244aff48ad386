"""One file of the static folder -> a pod of this node. Pure.

The uid is a hash of the node, the file and its content: an edit is another pod, a restart finds the same one. The name gets the node's as
a suffix, so that the mirror pods of two nodes never collide. Upstream: pkg/kubelet/config/common.go.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from edgekube.api import podrefs
from edgekube.api.catalog import CONFIG_MAP, POD
from edgekube.api.decoding import clean
from edgekube.api.types import Obj
from edgekube.errors import BadRequest

SOURCE = "kubernetes.io/config.source"
HASH = "kubernetes.io/config.hash"
SEEN = "kubernetes.io/config.seen"
MIRROR = "kubernetes.io/config.mirror"


class Refused(Exception):
    """The file is no pod that this node can run; the message says why."""


def is_static(pod: Obj) -> bool:
    """Whether the pod comes from a file of this node. A mirror of one is not."""
    annotations = pod["metadata"].get("annotations") or {}
    return annotations.get(SOURCE) == "file" and MIRROR not in annotations


def is_mirror(pod: Obj) -> bool:
    return MIRROR in (pod["metadata"].get("annotations") or {})


def parse(path: str, data: bytes, *, node_name: str, seen: str) -> Obj:
    """The pod. `seen` is when the file was first seen as it is, RFC 3339. Raises Refused."""
    pod = _loaded(data)
    if pod.get("kind") != "Pod" or pod.get("apiVersion") != "v1":
        raise Refused(f"invalid pod: it is a {pod.get('apiVersion')} {pod.get('kind')}, not a v1 Pod")
    try:
        clean(POD, pod)
    except BadRequest as error:
        raise Refused(error.message) from error
    uid = (pod.get("metadata") or {}).get("uid") or _hash(path, pod, node_name)
    _place(pod, uid, node_name, seen)
    POD.default(pod)
    problems = [f"{problem.field}: {problem.message}" for problem in POD.validate(pod, None)]
    if problems:
        raise Refused(f"invalid pod: [{', '.join(problems)}]")
    for what in _needs(pod):
        raise Refused(f"static pods may not reference {what}")
    return pod


def _loaded(data: bytes) -> Obj:
    import yaml

    try:
        found = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise Refused(f"couldn't parse as pod({' '.join(str(error).split())}), please check manifest file") from error
    if not isinstance(found, dict):
        raise Refused("couldn't parse as pod(the file holds no object), please check manifest file")
    try:
        plain: Obj = orjson.loads(orjson.dumps(found))
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Refused(f"couldn't parse as pod({error}), please check manifest file") from error
    return plain


def _hash(path: str, pod: Obj, node_name: str) -> str:
    text = f"host:{node_name}file:{path}".encode() + orjson.dumps(pod, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:32]


def _place(pod: Obj, uid: str, node_name: str, seen: str) -> None:
    metadata: dict[str, Any] = pod.setdefault("metadata", {})
    if not metadata.get("name"):
        raise Refused("invalid pod: metadata.name: Required value: name or generateName is required")
    spec: Any = pod.get("spec")
    if not spec:
        raise Refused("invalid pod: spec: Required value")
    metadata["name"] = f"{metadata['name']}-{node_name.lower()}"
    metadata["namespace"] = metadata.get("namespace") or "default"
    metadata["uid"], metadata["creationTimestamp"] = uid, seen
    for name in ("resourceVersion", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers"):
        metadata.pop(name, None)
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != MIRROR}
    metadata["annotations"] = annotations | {HASH: uid, SEEN: seen, SOURCE: "file"}
    spec["nodeName"] = node_name
    everything = {"operator": "Exists", "effect": "NoExecute"}  # so that trouble of the node does not end it
    spec["tolerations"] = [*(one for one in spec.get("tolerations") or () if one != everything), everything]
    pod["status"] = {"phase": "Pending"}


def _needs(pod: Obj) -> Iterator[str]:
    """What only an API could give. Upstream: pkg/apis/core/pods HasAPIObjectReference."""
    spec = pod["spec"]
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        yield "serviceaccounts"
    for kind, _ in podrefs.references(pod):
        yield "configmaps" if kind == CONFIG_MAP else "secrets"
    for volume in spec.get("volumes") or ():
        if volume.get("persistentVolumeClaim") or volume.get("ephemeral"):
            yield "persistentvolumeclaims"
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                yield "serviceaccounts"
            if source.get("clusterTrustBundle"):
                yield "clustertrustbundles"
    if spec.get("resourceClaims"):
        yield "resourceclaims"
