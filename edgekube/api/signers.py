"""The signers of certificates.k8s.io and what each signs (pkg/apis/certificates/helpers.go). Pure: only names and requests are read."""

from collections.abc import Iterable

from edgekube.lib.csr import SigningRequest

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"

NODE_PREFIX = "system:node:"
NODES = "system:nodes"
_CLIENT_USAGES = frozenset(("digital signature", "client auth"))
_SERVING_USAGES = frozenset(("digital signature", "server auth"))
_RSA = frozenset(("key encipherment",))


def node_client_problem(request: SigningRequest, usages: Iterable[str]) -> str:
    """Why this is no client certificate of a node; "" if it is one."""
    if tuple(request.organizations) != (NODES,):
        return "subject organization is not system:nodes"
    for found, why in (
        (request.names, "DNS subjectAltNames are not allowed"),
        (request.emails, "Email subjectAltNames are not allowed"),
        (request.addresses, "IP subjectAltNames are not allowed"),
        (request.uris, "URI subjectAltNames are not allowed"),
    ):
        if found:
            return why
    if not request.common_name.startswith(NODE_PREFIX):
        return "subject common name does not begin with system:node:"
    return _usages_problem(usages, _CLIENT_USAGES)


def node_serving_problem(request: SigningRequest, usages: Iterable[str]) -> str:
    """Why this is no serving certificate of a node; "" if it is one."""
    if tuple(request.organizations) != (NODES,):
        return "subject organization is not system:nodes"
    if not request.names and not request.addresses:
        return "DNS or IP subjectAltName is required"
    if request.emails:
        return "Email subjectAltNames are not allowed"
    if request.uris:
        return "URI subjectAltNames are not allowed"
    return _usages_problem(usages, _SERVING_USAGES) or (
        "" if request.common_name.startswith(NODE_PREFIX) else "subject common name does not begin with system:node:"
    )


def client_problem(usages: Iterable[str]) -> str:
    """Why this is no client certificate; "" if it is one."""
    found = list(usages)
    for usage in found:
        if usage not in ("digital signature", "key encipherment", "client auth"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in found else "missing required usage for client certificate: client auth"


def problem(signer: str, request: SigningRequest, usages: Iterable[str]) -> str | None:
    """Why `signer` cannot sign this, "" if it can, None if it is no signer of ours."""
    match signer:
        case "kubernetes.io/kube-apiserver-client":
            return client_problem(usages)
        case "kubernetes.io/kube-apiserver-client-kubelet":
            return node_client_problem(request, usages)
        case "kubernetes.io/kubelet-serving":
            return node_serving_problem(request, usages)
        case "kubernetes.io/legacy-unknown":
            return ""
    return None


def node_of(user: str) -> str:
    """The node's name in a user's name or a certificate's common name; "" if it is no node."""
    return user.removeprefix(NODE_PREFIX) if user.startswith(NODE_PREFIX) else ""


def _usages_problem(usages: Iterable[str], required: frozenset[str]) -> str:
    found = frozenset(usages)
    if found in (required, required | _RSA):
        return ""
    return f"usages did not match [{' '.join(sorted(required | _RSA))}]"
