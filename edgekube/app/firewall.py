"""Does the host's own firewall stop what edgekube needs? Names the rule, says what breaks and the exact command that helps.

Reads `nft -j list ruleset` and, where the kernel has legacy iptables rules, `iptables-legacy-save`. Changes nothing. Our own table can not
overrule a foreign drop: every hook asks every table, and one drop is enough.
"""

import contextlib
import ipaddress
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from edgekube.app.checks.finding import Finding
from edgekube.config import Settings
from edgekube.lib.nftwalk import Blocker, Packet, Ruleset, blockers, chains_named, parse
from edgekube.lib.process import clean_environment

_NOBODY = {4: "203.0.113.77", 6: "2001:db8::77"}  # some client outside
_OURS = ("edgekube_",)


@dataclass(frozen=True, slots=True)
class Need:
    """Traffic that must pass, what breaks if it does not, and how a user would name it to a firewall."""

    packet: Packet
    what: str
    port: str = ""  # "6443/tcp" for what comes to the node itself, "" for what passes through


def needs_of(settings: Settings, *, uplink: str, agent: bool) -> list[Need]:
    """`uplink` is the link of the default route, "" if unknown."""
    found = []
    for cidr in settings.cluster_cidrs:
        net = ipaddress.ip_network(cidr)
        pod, other, outside = str(net[11]), str(net[(1 << 8) + 11]), _NOBODY[net.version]
        found += [
            Need(Packet("forward", pod, other, "ekv0", "ek0", "tcp", 80), "pods to reach each other"),
            Need(Packet("forward", pod, outside, "ek0", uplink, "tcp", 443), "pods to reach the outside"),
            Need(Packet("forward", outside, pod, uplink, "ek0", "tcp", 80, dnat=True), "NodePorts and load balancers to reach pods"),
        ]
    first = ipaddress.ip_network(settings.cluster_cidrs[0])
    pod, outside = str(first[11]), _NOBODY[first.version]
    host = "" if agent else settings.advertise_address or settings.node_ip
    if not agent:
        port = settings.https_port
        found.append(Need(Packet("input", outside, host, uplink, "", "tcp", port), "agents and kubectl to reach the API", f"{port}/tcp"))
        found.append(Need(Packet("input", pod, host, "ek0", "", "tcp", port, dnat=True), "pods to reach the API"))
    found += [
        Need(Packet("input", pod, settings.cluster_dns.split(",")[0], "ek0", "", "udp", 53), "pods to ask the cluster's DNS"),
        Need(
            Packet("input", outside, "", uplink, "", "udp", settings.vxlan_port),
            "the pod network between nodes",
            f"{settings.vxlan_port}/udp",
        ),
    ]
    return found


def findings(settings: Settings, ruleset: Ruleset, needs: Sequence[Need]) -> list[Finding]:
    """Pure. One finding a blocker; one that is well if there is none."""
    by_blocker: dict[Blocker, list[Need]] = {}
    for need in needs:
        for blocker in blockers(ruleset, need.packet, spared=_our_tables(ruleset)):
            by_blocker.setdefault(blocker, []).append(need)
    found = []
    for blocker, stopped in by_blocker.items():
        may = "stops" if blocker.certain else "may stop"
        what = "; ".join(dict.fromkeys(need.what for need in stopped))
        text = f"the host's firewall {may}: {what}. It is {blocker}"
        found.append(Finding("firewall", False, text, _fix(settings, ruleset, blocker, stopped), fatal=False))
    return found or [Finding("firewall", True, "no foreign nftables rule stops pods, Services or nodes")]


def _our_tables(ruleset: Ruleset) -> set[str]:
    return {table for _, table, _ in ruleset.chains if table.startswith(_OURS)}


def _fix(settings: Settings, ruleset: Ruleset, blocker: Blocker, stopped: Sequence[Need]) -> str:
    ports = list(dict.fromkeys(need.port for need in stopped if need.port))
    cidrs = [cidr for cidr in settings.cluster_cidrs if blocker.family == "inet" or (":" in cidr) == (blocker.family == "ip6")]
    if blocker.table == "firewalld":
        sources = " ".join(f"--add-source={cidr}" for cidr in (*settings.cluster_cidrs, *settings.service_cidrs))
        opened = "".join(f" && firewall-cmd --permanent --add-port={port}" for port in ports)
        return f"firewall-cmd --permanent --zone=trusted {sources}{opened} && firewall-cmd --reload"
    if any(chains_named(ruleset, "ufw-")):
        routes = [f"ufw route allow {way} {cidr}" for cidr in cidrs for way in ("from", "to")]
        dns = [f"ufw allow from {cidr}" for cidr in cidrs]
        return " && ".join([*routes, *dns, *(f"ufw allow {port}" for port in ports)])
    inner = len(ports) < len(stopped)
    if blocker.family != "inet" and (blocker.chain.isupper() or blocker.table == "filter"):
        program = "ip6tables" if blocker.family == "ip6" else "iptables"
        return iptables_fix(program, cidrs if inner else (), ports, chain=stopped[0].packet.hook.upper())
    at = f"{blocker.family} {blocker.table} {blocker.chain}"
    rules = [f"nft insert rule {at} {'ip6' if ':' in cidr else 'ip'} {way} {cidr} accept" for cidr in cidrs for way in ("saddr", "daddr")]
    opened_ports = [f"nft insert rule {at} {port.split('/')[1]} dport {port.split('/')[0]} accept" for port in ports]
    wanted = (rules if inner else []) + opened_ports
    return f"{' && '.join(wanted)} (and the same in the file your firewall loads)"


def iptables_fix(program: str, cidrs: Sequence[str], ports: Sequence[str], *, chain: str) -> str:
    lines = [f"{program} -I {chain} {way} {cidr} -j ACCEPT" for cidr in cidrs for way in ("-s", "-d")]
    lines += [f"{program} -I INPUT -p {port.split('/')[1]} --dport {port.split('/')[0]} -j ACCEPT" for port in ports]
    return f"{' && '.join(lines)} (and save them as your distribution does)"


def legacy_findings(settings: Settings, saved: str) -> list[Finding]:
    """Pure, over `iptables-legacy-save -t filter`: a FORWARD policy of DROP that nothing softens for pods."""
    lines = saved.splitlines()
    if not any(line.startswith(":FORWARD DROP") for line in lines):
        return []
    cidrs = [cidr for cidr in settings.cluster_cidrs if ":" not in cidr]
    rules = [line.split() for line in lines if line.startswith("-A FORWARD ") and line.endswith("-j ACCEPT")]
    accepted = [cidr for cidr in cidrs if all(["-A", "FORWARD", way, cidr, "-j", "ACCEPT"] in rules for way in ("-s", "-d"))]
    if ["-A", "FORWARD", "-j", "ACCEPT"] in rules or len(accepted) == len(cidrs):
        return []
    text = "legacy iptables drops forwarded packets: pods reach nothing. It is the policy DROP of chain FORWARD in its table filter"
    return [Finding("firewall", False, text, iptables_fix("iptables-legacy", cidrs, (), chain="FORWARD"), fatal=False)]


def examine_firewall(settings: Settings, *, agent: bool) -> list[Finding]:
    """Ask the host. Nothing found where the programs are missing or we may not look."""
    found: list[Finding] = []
    listing = _output("nft", "-j", "list", "ruleset")
    if listing:
        with contextlib.suppress(ValueError):
            found += findings(settings, parse(orjson.loads(listing)), needs_of(settings, uplink=_uplink(), agent=agent))
    if "filter" in _read("/proc/net/ip_tables_names").split():
        saved = _output("iptables-legacy-save", "-t", "filter")
        found += legacy_findings(settings, (saved or b"").decode(errors="replace"))
    return found


def _output(*argv: str) -> bytes:
    if shutil.which(argv[0]) is None:
        return b""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, timeout=30, env=clean_environment())
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return ""


def _uplink() -> str:
    """The link of the default route."""
    for line in _read("/proc/net/route").splitlines()[1:]:
        parts = line.split()
        if len(parts) > 7 and parts[1] == "00000000" and parts[7] == "00000000":
            return parts[0]
    return ""
