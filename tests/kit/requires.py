"""What a test needs from the machine. A missing thing skips loudly, and fails where it was promised.

`pytestmark = needs("root", "podman")`. `EDGEKUBE_REQUIRE=podman,netns` (or `all`) turns the skip into a failure: a job that is meant to
run those tests can then never pass by skipping them.
"""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest


def _netns() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0


def _nft() -> bool:
    probe = ["unshare", "-n", "nft", "add table ip probe; add chain ip probe c { type nat hook output priority 0; }"]
    return os.geteuid() == 0 and shutil.which("nft") is not None and subprocess.run(probe, check=False, capture_output=True).returncode == 0


def _iptables(variant: str) -> bool:
    probe = f"{variant} -t nat -A OUTPUT -m statistic --mode random --probability 0.5 -m recent --name x --set -j CONNMARK --set-mark 1"
    done = subprocess.run(["unshare", "-n", "sh", "-c", f"{probe} && ip6{probe.removeprefix('ip')}"], check=False, capture_output=True)
    return os.geteuid() == 0 and done.returncode == 0


def _ipvs() -> bool:
    subprocess.run(["sh", "-c", "modprobe -qa ip_vs ip_vs_rr"], check=False, capture_output=True)
    return os.geteuid() == 0 and os.path.exists("/proc/net/ip_vs")


def _build() -> bool:
    """What packaging/build.py and the tests of the launcher need."""
    tools = all(shutil.which(tool) for tool in ("gcc", "objdump", "strip", "zstd"))
    return tools and subprocess.run(["gcc", "-static", "-xc", "-", "-lzstd", "-o", "/dev/null"], input=b"int main(){}", check=False).returncode == 0


_PROBES: dict[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "podman": lambda: shutil.which("podman") is not None and shutil.which("conmon") is not None and os.geteuid() == 0,
    "busybox": lambda: os.path.exists("/bin/busybox") or os.path.exists("/usr/bin/busybox"),
    "kubectl": lambda: shutil.which(kubectl()) is not None,
    "kubectl>=1.27": lambda: has("kubectl") and _kubectl_minor() >= 27,
    "netns": _netns,
    "nft": _nft,
    "nftables": _nft,
    "ipvs": _ipvs,
    "userspace": lambda: True,
    "iptables": lambda: _iptables("iptables"),
    "iptables-legacy": lambda: _iptables("iptables-legacy"),
    "wrk": lambda: shutil.which("wrk") is not None,
    "qemu": lambda: shutil.which("qemu-system-x86_64") is not None,
    "build": _build,
    "schema": lambda: _importable("kubernetes_validate"),
}


def kubectl() -> str:
    """The kubectl the tests drive; EDGEKUBE_TEST_KUBECTL names another one."""
    return os.environ.get("EDGEKUBE_TEST_KUBECTL", "kubectl")


def _kubectl_minor() -> int:
    """Debian 12's own is 1.20: it works, but has not learned all commands yet."""
    done = subprocess.run([kubectl(), "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    found = re.match(r"\d+", json.loads(done.stdout or "{}").get("clientVersion", {}).get("minor", ""))
    return int(found[0]) if found else 0


def _importable(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


@functools.cache
def has(what: str) -> bool:
    """Whether this machine has it; probed once."""
    return _PROBES[what]()


def needs(*things: str) -> pytest.MarkDecorator:
    """A mark for a module, class or test."""
    missing = [thing for thing in things if not has(thing)]
    promised = set(os.environ.get("EDGEKUBE_REQUIRE", "").split(","))
    broken = [thing for thing in missing if thing in promised or "all" in promised]
    if broken:
        raise RuntimeError(f"EDGEKUBE_REQUIRE promises {', '.join(broken)}, but this machine does not have it")
    return pytest.mark.skipif(bool(missing), reason=f"NOT TESTED HERE: needs {', '.join(missing)}")
