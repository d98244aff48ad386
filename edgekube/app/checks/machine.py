"""The machine itself: memory, swap, its name, and what it is built of."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekube.app.checks.finding import Finding
from edgekube.config import Settings

_LEAST_MIB = {False: 300, True: 200}  # a server, an agent
_COMMON_NAMES = frozenset(("localhost", "localhost.localdomain", "raspberrypi", "debian", "ubuntu", "pi", "linux", "dietpi", "orangepi"))
_BUILT_FOR = frozenset(("x86_64", "aarch64"))


def check_memory(settings: Settings) -> Sequence[Finding]:
    return judge_memory(meminfo(Path("/proc/meminfo").read_text()), Path("/proc/swaps").read_text(), agent=settings.disable_agent)


def meminfo(text: str) -> dict[str, int]:
    """KiB by name."""
    return {found[1]: int(found[2]) for found in re.finditer(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def judge_memory(known: Mapping[str, int], swaps: str, *, agent: bool) -> list[Finding]:
    """Pure."""
    total = known.get("MemTotal", 0) >> 10
    least = _LEAST_MIB[agent]
    found = []
    if total < least:
        text = f"this machine has {total} MiB of memory: {least} MiB are the least"
        found.append(Finding("memory", False, text, "add memory, or zram (apt-get install zram-tools)", fatal=False))
    devices = [line.split()[0] for line in swaps.splitlines()[1:] if line.strip()]
    on_disk = [device for device in devices if "zram" not in device]
    note = ""
    if on_disk:
        note = f"; swaps to {', '.join(on_disk)} (wears cards out and slows everything down when memory is short: zram is gentler)"
    elif devices:
        note = "; swaps to compressed memory"
    return [*found, Finding("memory", True, f"{total} MiB of memory{note}")]


def check_name(settings: Settings) -> Sequence[Finding]:
    """That it is valid at all was found when the settings were read."""
    return judge_name(settings.node_name, named=settings.node_named)


def judge_name(name: str, *, named: bool) -> list[Finding]:
    """Pure."""
    if not named and name in _COMMON_NAMES:
        text = f"this machine is called {name}, as many are: a second of that name gets another name in the cluster"
        return [Finding("name", False, text, "name it: hostnamectl set-hostname NAME, or --node-name NAME", fatal=False)]
    if len(name) > 63:
        return [Finding("name", False, f"{name} is longer than 63 characters: it is no host name", "use --node-name NAME", fatal=False)]
    return [Finding("name", True, f"the node is called {name}")]


def check_architecture(_settings: Settings) -> Sequence[Finding]:
    machine = os.uname().machine
    known = machine in _BUILT_FOR
    text = f"{machine} machine" if known else f"edgekube is not tried on {machine} machines"
    return (Finding("architecture", known, text, "use a 64-bit x86 or ARM machine", fatal=False),)
