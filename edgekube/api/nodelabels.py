"""Which labels of a Node its own kubelet may set (k8s.io/kubelet/pkg/apis/well_known_labels.go). Pure."""

from collections.abc import Iterable

RESTRICTED = "node-restriction.kubernetes.io"
PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
KUBELET_LABELS = frozenset(
    (
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    )
)


def forbidden_to_nodes(labels: Iterable[str]) -> list[str]:
    """Those a node may neither set nor change, sorted: they steer privileged work to chosen nodes."""
    return sorted(label for label in labels if _restricted(label) or (_is_kubernetes(label) and not _is_kubelets(label)))


def _namespace(label: str) -> str:
    return label.partition("/")[0] if "/" in label else ""


def _below(namespace: str, domain: str) -> bool:
    return namespace == domain or namespace.endswith(f".{domain}")


def _restricted(label: str) -> bool:
    return _below(_namespace(label), RESTRICTED)


def _is_kubernetes(label: str) -> bool:
    return _below(_namespace(label), "kubernetes.io") or _below(_namespace(label), "k8s.io")


def _is_kubelets(label: str) -> bool:
    return label in KUBELET_LABELS or any(_below(_namespace(label), prefix) for prefix in PREFIXES)
