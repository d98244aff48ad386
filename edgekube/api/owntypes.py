"""The types of edgekube's own kinds, in the compact form of schema.py but with names in place of numbers, and their descriptions.

    "#NAME" a struct, "[" a list, "{" a map by string, "s" string, "i" int32, "b" boolean, "x" number or string
"""

from collections.abc import Mapping
from typing import Any

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PREFIX = "io.edgekube.networking.v1alpha1."
_ATOMIC = {"l": "a"}
POLICY_SLICE = f"{_PREFIX}PolicySlice"

TYPES: Mapping[str, Mapping[str, Any]] = {
    POLICY_SLICE: {
        "f": {"apiVersion": "s", "kind": "s", "metadata": f"#{_META}ObjectMeta", "spec": f"#{_PREFIX}PolicySliceSpec"},
        "g": [["networking.edgekube.io", "v1alpha1", "PolicySlice"]],
    },
    f"{POLICY_SLICE}List": {
        "f": {"apiVersion": "s", "items": f"[#{POLICY_SLICE}", "kind": "s", "metadata": f"#{_META}ListMeta"},
        "g": [["networking.edgekube.io", "v1alpha1", "PolicySliceList"]],
        "r": ["items"],
    },
    f"{_PREFIX}PolicySliceSpec": {
        "f": {
            "podSelector": f"#{_META}LabelSelector",
            "policyTypes": ["[s", _ATOMIC],
            "ingress": [f"[#{_PREFIX}PolicySliceRule", _ATOMIC],
            "egress": [f"[#{_PREFIX}PolicySliceRule", _ATOMIC],
            "peers": [f"[#{_PREFIX}PolicySlicePeers", _ATOMIC],
        }
    },
    f"{_PREFIX}PolicySliceRule": {
        "f": {
            "everyone": "b",
            "peers": ["[i", _ATOMIC],
            "named": ["[i", _ATOMIC],
            "blocks": ["[#io.k8s.api.networking.v1.IPBlock", _ATOMIC],
            "ports": ["[#io.k8s.api.networking.v1.NetworkPolicyPort", _ATOMIC],
        }
    },
    f"{_PREFIX}PolicySlicePeers": {
        "f": {
            "everyNamespace": "b",
            "namespaces": ["[s", _ATOMIC],
            "podSelector": f"#{_META}LabelSelector",
            "addresses": ["[s", _ATOMIC],
            "nodes": "{[s",
            "named": [f"[#{_PREFIX}PolicySliceNamedPort", _ATOMIC],
        }
    },
    f"{_PREFIX}PolicySliceNamedPort": {
        "f": {"protocol": "s", "name": "s", "port": "i", "addresses": ["[s", _ATOMIC], "nodes": "{[s"},
        "r": ["name", "port"],
    },
}

DESCRIPTIONS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    POLICY_SLICE: (
        "PolicySlice is a NetworkPolicy with its selectors resolved, written by edgekube for its nodes. It lives in memory only.",
        {"spec": "What nodes enforce."},
    ),
    f"{POLICY_SLICE}List": ("PolicySliceList is a list of PolicySlices.", {"items": "The slices."}),
    f"{_PREFIX}PolicySliceSpec": (
        "PolicySliceSpec says which pods a policy isolates and who may talk with them.",
        {
            "podSelector": "Selects the isolated pods in the namespace of the slice; every node matches its own pods.",
            "policyTypes": "The directions in which the selected pods are isolated: Ingress, Egress.",
            "ingress": "What the selected pods may be reached from.",
            "egress": "What the selected pods may reach.",
            "peers": "The groups of pods that rules refer to by their position here.",
        },
    ),
    f"{_PREFIX}PolicySliceRule": (
        "PolicySliceRule admits traffic with any of its peers on any of its ports.",
        {
            "everyone": "Whether any address is admitted.",
            "peers": "Positions in `peers` of the admitted pods.",
            "named": "Positions in `peers` of pods that only ports with names are looked up on; with `blocks`, those within them.",
            "blocks": "Admitted ranges of addresses.",
            "ports": "Admitted ports of the destination; none means all.",
        },
    ),
    f"{_PREFIX}PolicySlicePeers": (
        "PolicySlicePeers is a group of pods.",
        {
            "everyNamespace": "Whether pods of all namespaces can be in the group.",
            "namespaces": "The namespaces whose pods can be in the group.",
            "podSelector": "Selects the pods within those namespaces.",
            "addresses": "Members that are not pods of a node (the cluster's DNS).",
            "nodes": "Addresses of the member pods by the node they run on; a node knows its own pods better.",
            "named": "The members that have a named port which a rule asks for.",
        },
    ),
    f"{_PREFIX}PolicySliceNamedPort": (
        "PolicySliceNamedPort lists the members whose port of that name has that number.",
        {"protocol": "", "name": "Name of the port.", "port": "Its number.", "addresses": "As in the group.", "nodes": "As in the group."},
    ),
}
