"""Versions of the programs that do the work: older ones lack what is used of them. That they are there at all decides a start already."""

import os
import re
from collections.abc import Mapping, Sequence

from edgekube.app.checks.finding import Finding, Remedy, ask, must
from edgekube.config import Settings
from edgekube.lib.receipt import Receipt

# The oldest that has all that is used: podman's API v4, conmon's and the runtimes' cgroup v2, nftables' maps of concatenated values.
LEAST = {"podman": (4, 0), "conmon": (2, 0, 26), "crun": (0, 17), "runc": (1, 0), "nft": (0, 9, 8)}
_FATAL = frozenset(("podman",))
_PACKAGES = {"nft": "nftables"}
_MANAGERS = {
    "apt-get": ("install", "-y", "-q", "--no-install-recommends"), "dnf": ("install", "-y", "-q"), "apk": ("add",),
    "zypper": ("--non-interactive", "install"),
}  # fmt: skip


def check_programs(settings: Settings) -> Sequence[Finding]:
    if settings.disable_agent:
        return ()
    told = {name: ask(name, "--version") for name in LEAST}
    return judge({name: text for name, (code, text) in told.items() if code == 0 or "not found" not in text})


def judge(told: Mapping[str, str]) -> list[Finding]:
    """Pure, over what each program that is there says to `--version`."""
    found, good = [], []
    for name, text in told.items():
        version = version_in(text)
        first = text.splitlines()[0] if text else "it said nothing"
        if version is None:
            fix, cause = f"reinstall it: try '{name} --version'", f"{name} does not tell its version: it may be broken"
            found.append(Finding(name, False, cause, fix, fatal=name in _FATAL, proof=first))
        elif version < LEAST[name]:
            least, have = (".".join(map(str, numbers)) for numbers in (LEAST[name], version))
            fix = f"install {_PACKAGES.get(name, name)} {least} or newer (Debian 12, Ubuntu 24.04 and Raspberry Pi OS 12 have it)"
            cause = f"{name} {have} is too old: {least} or newer is needed"
            found.append(Finding(name, False, cause, fix, fatal=name in _FATAL, proof=first))
        else:
            good.append(f"{name} {'.'.join(map(str, version))}")
    if "crun" not in told and "runc" not in told:
        return found  # told by those who decide a start
    return found or [Finding("versions", True, ", ".join(good))]


def version_in(text: str) -> tuple[int, ...] | None:
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+)", text)
    return tuple(map(int, found[1].split("."))) if found else None


def installs(package: str) -> Remedy | None:
    """None where no known package manager is."""
    manager = next((name for name in _MANAGERS if ask(name, "--version")[0] == 0), "")
    if not manager:
        return None

    def do(receipt: Receipt) -> None:
        receipt.note("package", package)
        os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
        must(manager, *_MANAGERS[manager], package, timeout=900.0)

    return Remedy(f"install the package {package}", do)
