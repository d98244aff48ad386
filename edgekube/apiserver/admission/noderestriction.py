"""NodeRestriction: a node writes its own Node, Lease and pods, and nothing that would draw work or secrets to it.

Mirrors plugin/pkg/admission/noderestriction. The Node authorizer says which resources a node may write; this looks at what is written:
    pods                 only mirror pods of its own may be made, only its own deleted or evicted; a status update moves no labels, and
                         names as addresses of a pod none outside of the node's ranges: Services and policies go by them
    nodes                only its own; no taints after registration; no labels of kubernetes.io beyond those kubelets own; no pod ranges:
                         all others send there whatever is for the range that a Node names; no addresses out of other nodes' ranges
                         or of a Service: load balancers answer on what a node says is its address
    serviceaccounts/token   bound, by name and uid, to a pod that runs there, for an audience that a volume of the pod names
    leases               the one with its name in kube-node-lease
Everybody else passes. Addresses and ranges are beyond what upstream looks at.
"""

from collections.abc import Callable, Mapping
from typing import Any

from edgekube.api import catalog, podrefs
from edgekube.api.nodelabels import forbidden_to_nodes
from edgekube.api.types import Obj
from edgekube.apiserver.admission import nodeclaims as claims
from edgekube.apiserver.admission.common import BasePlugin, forbidden
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.allocators import cluster_addresses
from edgekube.apiserver.identity import Attributes, Authorizer, node_of
from edgekube.apiserver.nodeauthz import LEASES, MIRROR
from edgekube.apiserver.objects import Objects
from edgekube.errors import NotFound

_GRANT = "request-serviceaccounts-token-audience"


class NodeRestriction(BasePlugin):
    """See the module. Looks at what is about to be stored, so it stands among the checks after all mutation."""

    name = "NodeRestriction"
    kinds = ("pods", "nodes", "serviceaccounts", "leases")

    def __init__(self, objects: Objects, authorizer: Authorizer | None = None) -> None:
        self._objects, self._authorizer = objects, authorizer

    async def validate(self, request: Admission) -> None:
        node = node_of(request.user)
        if node is None:
            return
        if not node:
            raise forbidden(request, f'could not determine node from user "{request.user.name}"')
        _CHECKS[request.kind.plural](self, node, request)

    # pods

    def _pod(self, node: str, request: Admission) -> None:
        match request.subresource, request.operation:
            case "", "CREATE":
                self._mirror(node, request, request.obj or {})
            case "", "DELETE":
                if _node_name(request.old) != node:
                    raise forbidden(request, f'node "{node}" can only delete pods with spec.nodeName set to itself')
            case "", operation:
                raise forbidden(request, f'unexpected operation "{operation}", node "{node}" can only create and delete mirror pods')
            case "status", "UPDATE":
                _check_status(node, request)
                self._check_addresses(node, request)
            case "eviction", "CREATE":
                self._eviction(node, request)
            case (("status" | "eviction"), operation):
                raise forbidden(request, f'unexpected operation "{operation}"')
            case subresource, _:
                raise forbidden(request, f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are allowed")

    def _mirror(self, node: str, request: Admission, pod: Obj) -> None:
        """A node may show a static pod of its own: owned by its Node, referring to nothing else of the API."""
        metadata = pod["metadata"]
        if MIRROR not in (metadata.get("annotations") or {}):
            raise forbidden(request, f'pod does not have "{MIRROR}" annotation, node "{node}" can only create mirror pods')
        if _node_name(pod) != node:
            raise forbidden(request, f'node "{node}" can only create pods with spec.nodeName set to itself')
        self._check_owner(node, request, metadata.get("ownerReferences") or [])
        if pod["spec"].get("serviceAccountName"):
            raise forbidden(request, f'node "{node}" can not create pods that reference a service account')
        for kind, what in ((catalog.SECRET, "secrets"), (catalog.CONFIG_MAP, "configmaps")):
            if any(found is kind for found, _ in podrefs.references(pod)):
                raise forbidden(request, f'node "{node}" can not create pods that reference {what}')
        for volume in pod["spec"].get("volumes") or ():
            if any(source.get("clusterTrustBundle") for source in (volume.get("projected") or {}).get("sources") or ()):
                raise forbidden(request, f'node "{node}" can not create pods that reference clustertrustbundles')
            if volume.get("persistentVolumeClaim"):
                raise forbidden(request, f'node "{node}" can not create pods that reference persistentvolumeclaims')

    def _check_owner(self, node: str, request: Admission, owners: list[Mapping[str, Any]]) -> None:
        if len(owners) > 1:
            raise forbidden(request, f'node "{node}" can only create pods with a single owner reference set to itself')
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise forbidden(request, f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            raise forbidden(request, f'node "{node}" can only create pods with a controller owner reference set to itself')
        if owner.get("blockOwnerDeletion"):
            raise forbidden(request, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        known = self._objects.get(catalog.NODE, node)
        if known is None:
            raise NotFound.of("", "nodes", node)
        if owner.get("uid") != known.uid:
            raise forbidden(request, f"node {node} UID mismatch: expected {owner.get('uid')} got {known.uid}")

    def _check_addresses(self, node: str, request: Admission) -> None:
        """Of a pod with a network of its own. Those that the API has already may stay: the node's ranges may be newer."""
        pod, known = request.obj or {}, self._objects.get(catalog.NODE, node)
        ranges = [] if known is None else claims.networks(known.decode())
        if not ranges or (pod.get("spec") or {}).get("hostNetwork"):
            return
        for address in sorted(set(claims.pod_addresses(pod)) - set(claims.pod_addresses(request.old or {}))):
            if not claims.inside(address, ranges):
                raise forbidden(request, f'node "{node}" cannot give a pod the address {address}, which is not in its pod ranges')

    def _eviction(self, node: str, request: Admission) -> None:
        name = request.name or ((request.obj or {}).get("metadata") or {}).get("name") or ""
        if not name:
            raise forbidden(request, "could not determine pod from request data")
        if _node_name(self._pod_named(request.namespace, name)) != node:
            raise forbidden(request, f"node {node} can only evict pods with spec.nodeName set to itself")

    def _pod_named(self, namespace: str, name: str) -> Obj:
        item = self._objects.get(catalog.POD, name, namespace)
        if item is None:
            raise NotFound.of("", "pods", name)
        return item.decode()

    # nodes

    def _node(self, node: str, request: Admission) -> None:
        new, old = request.obj or {}, request.old or {}
        name = request.name or (new.get("metadata") or {}).get("name") or ""
        if name != node:
            raise forbidden(request, f'node "{node}" is not allowed to modify node "{name}"')
        if request.operation not in ("CREATE", "UPDATE"):
            return
        source = (new.get("spec") or {}).get("configSource")
        created = request.operation == "CREATE"
        if source and created:
            raise forbidden(request, f'node "{node}" is not allowed to create pods with a non-nil configSource')
        if source and source != (old.get("spec") or {}).get("configSource"):
            raise forbidden(request, f'node "{node}" is not allowed to update configSource to a new non-nil configSource')
        if not created and ((new.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
            raise forbidden(request, f'node "{node}" is not allowed to modify taints')
        self._check_own_addresses(node, request, claims.node_addresses(new) - claims.node_addresses(old))
        if any((new.get("spec") or {}).get(field) != (old.get("spec") or {}).get(field) for field in ("podCIDR", "podCIDRs")):
            raise forbidden(request, f'node "{node}" is not allowed to set its pod ranges')
        moved = _moved(_labels(new), _labels(old))
        if refused := forbidden_to_nodes(moved):
            what = f'node "{node}" is not allowed to set the following labels' if created else "is not allowed to modify labels"
            raise forbidden(request, f"{what}: {', '.join(refused)}")

    def _check_own_addresses(self, node: str, request: Admission, claimed: set[str]) -> None:
        """`claimed`: those that the API does not have yet. Of its own range it may have one: a machine without networks has no other."""
        if not claimed:
            return
        others = [item for item in self._objects.items(catalog.NODE) if item.key.name != node]
        ranges = [network for item in others for network in claims.networks(item.decode())]
        services = {address for item in self._objects.items(catalog.SERVICE) for address in cluster_addresses(item.decode())}
        for address in sorted(claimed):
            if address in services or claims.inside(address, ranges):
                raise forbidden(request, f'node "{node}" cannot have the address {address}, which is one of a pod or a Service')

    # tokens and leases

    def _token(self, node: str, request: Admission) -> None:
        if request.operation != "CREATE" or request.subresource != "token":
            return
        bound = ((request.obj or {}).get("spec") or {}).get("boundObjectRef") or {}
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not bound.get("name"):
            raise forbidden(request, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise forbidden(request, "node requested token with a pod binding without a uid")
        pod = self._pod_named(request.namespace, bound["name"])
        if bound["uid"] != pod["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record."
            raise forbidden(request, f"{why} The object might have been deleted and then recreated")
        if _node_name(pod) != node:
            raise forbidden(request, "node requested token bound to a pod scheduled on a different node")
        self._audience(request, pod)

    def _audience(self, request: Admission, pod: Obj) -> None:
        """One that a volume of the pod is for, or that somebody granted: else a stolen node had tokens for whoever trusts our issuer."""
        audiences = ((request.obj or {}).get("spec") or {}).get("audiences") or [""]
        if len(audiences) > 1:
            raise forbidden(request, "node may only request 0 or 1 audiences")
        if audiences[0] in claims.audiences(pod):
            return
        asked = Attributes(request.user, _GRANT, resource=audiences[0], version="v1", namespace=request.namespace, name=request.name)
        if not audiences[0] or self._authorizer is None or not self._authorizer.authorize(asked).allowed:
            why = f"{request.user.name} is not authorized to request tokens for this audience"
            raise forbidden(request, f'audience "{audiences[0]}" not found in pod spec volume, {why}')

    def _lease(self, node: str, request: Admission) -> None:
        if request.namespace != LEASES:
            raise forbidden(request, f'can only access leases in the "{LEASES}" system namespace')
        name = ((request.obj or {}).get("metadata") or {}).get("name") if request.operation == "CREATE" else request.name
        if name != node:
            raise forbidden(request, "can only access node lease with the same name as the requesting node")


_CHECKS: Mapping[str, Callable[[NodeRestriction, str, Admission], None]] = {
    "pods": NodeRestriction._pod,
    "nodes": NodeRestriction._node,
    "serviceaccounts": NodeRestriction._token,
    "leases": NodeRestriction._lease,
}


def _check_status(node: str, request: Admission) -> None:
    """Raises Forbidden unless the pod is the node's and only its status moves."""
    new, old = request.obj or {}, request.old or {}
    if _node_name(old) != node:
        own = "only update pod status for pods with spec.nodeName set to itself"
        raise forbidden(request, f'node "{node}" can {own}')
    if _labels(new) != _labels(old):
        raise forbidden(request, f'node "{node}" cannot update labels through pod status')
    claims = "resourceClaimStatuses"
    if ((new.get("status") or {}).get(claims) or []) != ((old.get("status") or {}).get(claims) or []):
        raise forbidden(request, f'node "{node}" cannot update resource claim statues')


def _node_name(pod: Mapping[str, Any] | None) -> str:
    return str(((pod or {}).get("spec") or {}).get("nodeName") or "")


def _labels(obj: Mapping[str, Any]) -> Mapping[str, str]:
    return (obj.get("metadata") or {}).get("labels") or {}


def _moved(new: Mapping[str, str], old: Mapping[str, str]) -> set[str]:
    """Keys that came, went or changed."""
    return {key for key in new.keys() | old.keys() if new.get(key) != old.get(key)}
