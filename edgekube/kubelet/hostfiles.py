"""The files every container of a pod sees from the node: /etc/hosts and /etc/resolv.conf. Pure but for `write_host_files`.

Writes pods/<uid>/etc-hosts and resolv.conf in place (they are bind-mounted: a rename would leave the container the old file).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekube.api.types import Obj
from edgekube.kubelet.podspec import host_network

_HEADER = "# Kubernetes-managed hosts file.\n"
_HOST_HEADER = "# Kubernetes-managed hosts file (host network).\n"
_LOCAL = (
    "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
    "fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
)
MAX_SEARCH, MAX_SEARCH_CHARS, MAX_SERVERS = 32, 2048, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolver:
    """A resolv.conf."""

    servers: Sequence[str] = ()
    search: Sequence[str] = ()
    options: Sequence[str] = ()

    @property
    def text(self) -> str:
        lines = [f"search {' '.join(self.search)}"] if self.search else []
        lines += [f"nameserver {server}" for server in self.servers]
        lines += [f"options {' '.join(self.options)}"] if self.options else []
        return "".join(line + "\n" for line in lines)


def parse_resolver(text: str) -> Resolver:
    """As the resolver reads it: the last `search` wins."""
    servers: list[str] = []
    search: Sequence[str] = ()
    options: Sequence[str] = ()
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] == "search":
            search = [word.rstrip(".") or "." for word in words[1:]]
        elif words[0] == "options":
            options = words[1:]
    return Resolver(servers=servers, search=search, options=options)


def pod_resolver(pod: Obj, *, host: Resolver, cluster_dns: Sequence[str], domain: str) -> Resolver:
    """What dnsPolicy and dnsConfig of the pod make of the node's resolver."""
    policy = pod["spec"].get("dnsPolicy") or "ClusterFirst"
    if policy == "ClusterFirst" and host_network(pod):
        policy = "Default"
    if policy == "None":
        base = Resolver()
    elif policy == "Default" or not cluster_dns:
        base = host
    else:
        namespace = pod["metadata"]["namespace"]
        names = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain] if domain else []
        base = Resolver(servers=cluster_dns, search=_unique([*names, *host.search]), options=("ndots:5",))
    return _limited(_with_config(base, pod["spec"].get("dnsConfig") or {}))


def _with_config(base: Resolver, extra: Obj) -> Resolver:
    options = {option.partition(":")[0]: option for option in base.options}
    for entry in extra.get("options") or ():
        value = entry.get("value")
        options[entry["name"]] = entry["name"] if value is None or value == "" else f"{entry['name']}:{value}"
    return Resolver(
        servers=_unique([*base.servers, *(extra.get("nameservers") or ())]),
        search=_unique([*base.search, *(extra.get("searches") or ())]),
        options=list(options.values()),
    )


def _limited(resolver: Resolver) -> Resolver:
    search = list(resolver.search[:MAX_SEARCH])
    while search and len(" ".join(search)) > MAX_SEARCH_CHARS:
        search.pop()
    return Resolver(servers=resolver.servers[:MAX_SERVERS], search=search, options=resolver.options)


def _unique(values: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(values))


def hostname(pod: Obj) -> str:
    """spec.hostname, else the pod's name cut to what a host name may be."""
    spec = pod["spec"]
    if spec.get("hostnameOverride"):
        return str(spec["hostnameOverride"])
    name: str = spec.get("hostname") or pod["metadata"]["name"]
    return name[:63].rstrip("-.")


def domain_name(pod: Obj, domain: str) -> str:
    """subdomain.namespace.svc.domain, or "" without a subdomain."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain or pod["spec"].get("hostnameOverride"):
        return ""
    return f"{subdomain}.{pod['metadata']['namespace']}.svc.{domain}"


def hosts_text(pod: Obj, *, ips: Sequence[str], domain: str, host_file: str = "") -> str:
    """A pod of its own network gets its own names; one on the host's network the host's file; both the hostAliases."""
    if host_network(pod):
        text = _HOST_HEADER + host_file
    else:
        name, full = hostname(pod), domain_name(pod, domain)
        names = f"{name}.{full}\t{name}" if full else name
        text = _HEADER + _LOCAL + "".join(f"{ip}\t{names}\n" for ip in ips)
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        text += "".join(f"{alias['ip']}\t" + "\t".join(alias.get("hostnames") or ()) + "\n" for alias in aliases)
    return text


@dataclass(frozen=True, slots=True)
class HostFiles:
    hosts: Path
    resolver: Path


def write_host_files(folder: Path, *, hosts: str, resolver: str) -> HostFiles:
    """Write what differs, keeping each file's inode."""
    folder.mkdir(parents=True, exist_ok=True)
    files = HostFiles(folder / "etc-hosts", folder / "resolv.conf")
    for path, text in ((files.hosts, hosts), (files.resolver, resolver)):
        data = text.encode()
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
            path.chmod(0o644)
    return files
