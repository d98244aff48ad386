"""What the kernel can do. A feature counts as there if it is built in, loaded, or a module of this kernel; else it is tried for real, in a
network namespace that is gone at once.

Not asked for: br_netfilter (pods have no bridge here), user namespaces, and what only certain --proxy-modes need.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.app.checks.finding import Finding, Remedy, ask, must
from edgekube.config import Settings
from edgekube.lib.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Feature:
    """`trial` is a shell line that works only with it, in a network namespace of its own."""

    module: str
    breaks: str
    fatal: bool
    trial: str = ""


_CHAIN = "nft 'add table ip t; add chain ip t c"
FEATURES = (
    Feature("overlay", "containers have no file systems", True, "grep -qw overlay /proc/filesystems"),
    Feature("veth", "pods get no network", True, "ip link add ekcheck type veth peer name ekcheck2"),
    Feature("vxlan", "pods reach only nodes of the same subnet", False, "ip link add ekcheck type vxlan id 1 dstport 8472"),
    Feature("nf_tables", "Services and network policies have no rules", True, "nft add table ip ekcheck"),
    Feature("nft_chain_nat", "Services can not translate addresses", True, f"{_CHAIN} {{ type nat hook output priority 0; }}'"),
    Feature(
        "nft_masq",
        "pods do not reach the outside",
        True,
        f"{_CHAIN} {{ type nat hook postrouting priority 0; }}; add rule ip t c masquerade'",
    ),
    Feature("nft_numgen", "Services can not spread connections", True, f"{_CHAIN}; add rule ip t c numgen random mod 2 1 drop'"),
    Feature("nf_conntrack", "Services can not follow connections", True, f"{_CHAIN}; add rule ip t c ct state new accept'"),
)


def check_kernel(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent:
        return ()
    known = modules(os.uname().release)
    unknown = [feature for feature in FEATURES if feature.module not in known.there and feature.module not in known.loadable]
    failed = {feature.module: why for feature in unknown if (why := tried(feature)) is not None}
    return judge(failed, known, os.uname().release)


@dataclass(frozen=True, slots=True)
class Modules:
    """`there`: built in or loaded; `loadable`: files of this kernel. `folder` is "" where this kernel's modules are not installed."""

    there: Collection[str]
    loadable: Collection[str]
    folder: str = ""


def modules(release: str, root: Path = Path("/")) -> Modules:
    there = {line.split()[0] for line in _lines(root / "proc/modules")}
    there |= {name for name in ("overlay",) if any(name in line.split() for line in _lines(root / "proc/filesystems"))}
    for folder in (root / "lib/modules" / release, root / "usr/lib/modules" / release):
        if folder.is_dir():
            there |= {_name(line) for line in _lines(folder / "modules.builtin")}
            return Modules(there, {_name(line.partition(":")[0]) for line in _lines(folder / "modules.dep")}, str(folder))
    return Modules(there, set())


def tried(feature: Feature) -> str | None:
    """Why it does not work; None if it does, or if that can not be found out."""
    if os.geteuid() != 0 or not feature.trial:
        return None
    code, text = ask("unshare", "-n", "sh", "-c", feature.trial)
    if code <= 0 or "not found" in text:
        return None
    return text.splitlines()[0] if text else f"'{feature.trial}' failed"


def judge(failed: dict[str, str], known: Modules, release: str) -> list[Finding]:
    """Pure."""
    found = []
    for feature in FEATURES:
        if feature.module in failed:
            fix = f"use a kernel with {feature.module}"
            if not known.folder:
                fix = f"the modules of the running kernel {release} are not installed: was it upgraded? Then reboot; else {fix}"
            text = f"the kernel has no {feature.module}: {feature.breaks}"
            found.append(Finding(f"kernel {feature.module}", False, text, fix, fatal=feature.fatal, proof=failed[feature.module]))
    return found or [Finding("kernel", True, f"kernel {release} has {', '.join(feature.module for feature in FEATURES)}")]


def loads(feature: str) -> Remedy:
    """For a module that the kernel does not load by itself."""

    def do(_receipt: Receipt) -> None:
        must("modprobe", feature)

    return Remedy(f"load the kernel module {feature}", do)


def _lines(path: Path) -> Sequence[str]:
    try:
        return [line for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        return []


def _name(path: str) -> str:
    """kernel/net/core/x-y.ko.xz -> x_y, as /proc/modules has it."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
