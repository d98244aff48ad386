"""What a node changes on its host besides what the receipt's other callers note: written down once, before its parts start.

Things that come and go with pods are noted as a class, by the mark they are found by, so that pods cost no writes. `diff` tells how
everything stands now.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.app.hostkinds import CLASS, CONTROLLERS, FOLDER, MODULE, SHARED, State, loaded_modules, look
from edgekube.app.paths import Paths
from edgekube.kubelet.runtime.cgroups import Hierarchy, PodGroups
from edgekube.lib.files import mounts_below
from edgekube.lib.process import clean_environment
from edgekube.lib.receipt import Change, Receipt

LINKS, TABLES, GROUPS, MOUNTS = "links", "nft tables", "control groups", "mounts"
# What podman and the OCI runtime make outside of our folders, whatever they are told; used together with the host's own podman.
_PODMAN_FOLDERS = ("/var/lib/containers", "/var/lib/containers/cache", "/run/crun", "/run/runc", "/run/containers", "/run/libpod")
_PODMAN_FILES = (
    "/var/lib/containers/cache/blob-info-cache-v1.boltdb",
    "/var/lib/containers/cache/blob-info-cache-v1.sqlite",
    str(Path("/dev", "shm", "libpod_lock")),
)
# Modules the kernel loads for our rules, and of which it counts the users; whom others need first. Not veth, vxlan and the like: taking
# those out would take the links of others along, wherever they are; they change nothing else.
_MODULES = (
    "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack", "nf_conntrack_netlink", "nf_nat", "nf_reject_ipv4", "nf_reject_ipv6", "nft_reject",
    "nft_reject_ipv4", "nft_reject_ipv6", "nft_reject_inet", "nft_fib", "nft_fib_ipv4", "nft_fib_ipv6", "nft_fib_inet", "nft_limit",
    "nft_hash", "nft_numgen", "nft_ct", "nft_redir", "nft_nat", "nft_masq", "nft_chain_nat", "ip_vs", "ip_vs_rr",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One change and how it stands. `now`: what there is of a class."""

    change: Change
    state: State
    now: str = ""


def note_node(receipt: Receipt, *, instance: str, paths: Paths, hierarchy: Hierarchy) -> None:
    """Everything a node on this host will change. Blocks for one sync of the disk at the first start; raises OSError."""
    receipt.note_all(planned(instance, paths, hierarchy))


def planned(instance: str, paths: Paths, hierarchy: Hierarchy) -> Iterator[Change]:
    """What is there already is not ours."""
    yield Change(CLASS, LINKS, after=f"edgekube:{instance}:*")
    yield Change(CLASS, TABLES, after=f"edgekube_{instance}*")
    yield Change(CLASS, GROUPS, after=f"/{paths.cgroup_root(instance)}")
    yield Change(CLASS, MOUNTS, after=f"{paths.run} {paths.data / 'pods'} {paths.data / 'storage'}")
    folders = [*_PODMAN_FOLDERS, *([str(paths.pod_logs), str(paths.container_links)] if paths.is_default else [])]
    yield from (Change(FOLDER, name) for name in folders if not Path(name).exists())
    yield from (Change(SHARED, name) for name in _PODMAN_FILES if not Path(name).exists())
    if loaded := loaded_modules():
        yield from (Change(MODULE, name) for name in _MODULES if name not in loaded)
    if hierarchy.v2:
        path = hierarchy.base / "cgroup.subtree_control"
        before = path.read_text().split()
        wanted = " ".join(dict.fromkeys([*before, *hierarchy.controllers]))
        if wanted != " ".join(before):
            yield Change(CONTROLLERS, str(path), before=" ".join(before), after=wanted)


def diff(receipt: Receipt, *, hierarchy: Hierarchy) -> list[Line]:
    """Every change that was noted, in order."""
    found = []
    for change in receipt.changes():
        if change.kind == CLASS:
            now = _members(change, hierarchy)
            found.append(Line(change, State.OURS if now else State.UNDONE, ", ".join(now)))
        else:
            found.append(Line(change, look(change)))
    return found


def _members(change: Change, hierarchy: Hierarchy) -> Sequence[str]:
    mark = change.after or ""
    if change.name == LINKS:
        own, prefix = mark.removesuffix("*"), "label edgekube"
        links = [str(link["ifname"]) for link in _json("ip", "-j", "link") if str(link.get("ifalias", "")).startswith(own)]
        return [*links, *(["addresses on lo"] if prefix in _output("ip", "-o", "addr", "show", "lo") else [])]
    if change.name == TABLES:
        tables = [line.split() for line in _output("nft", "list", "tables").splitlines()]
        return [" ".join(words[1:]) for words in tables if words[2].startswith(mark.removesuffix("*"))]
    if change.name == GROUPS:
        groups = PodGroups(hierarchy, mark.strip("/"))
        pods = len(groups.pods())
        return [f"{mark} with {pods} pods"] if any((tree / mark.strip("/")).exists() for tree in hierarchy.trees()) else []
    if change.name == MOUNTS:
        points = {point for folder in mark.split() for point in mounts_below(Path(folder))}
        return [f"{len(points)} mounts"] if points else []
    return [mark]


def _json(*argv: str) -> Sequence[dict[str, object]]:
    try:
        found = json.loads(_output(*argv) or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _output(*argv: str) -> str:
    """ "" where it can not be asked."""
    try:
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30, env=clean_environment()).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
