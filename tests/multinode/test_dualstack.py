"""A cluster with ranges of both families over machines that have IPv4 alone: pods have two addresses and reach each other with both."""

from tests.e2e.manifests import pod
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

FLAGS = ("--cluster-cidr=10.42.0.0/16,fd42::/48", "--service-cidr=10.43.0.0/16,fd43::/112")


def pinged(f, name, target):
    six = ["-6"] if ":" in target else []
    try:
        return " 0% packet loss" in f.kubectl("exec", "-n", "default", name, "--", "ping", *six, "-c1", "-W1", target, timeout=10)
    except Exception:
        return False


def test_pods_have_addresses_of_both_families_and_reach_each_other():
    with fleet(agents=1, server_flags=FLAGS) as f:
        for name, node in (("one", "server"), ("two", "agent-1"), ("three", "agent-1")):
            f.apply(pod(name, "sleep 3600", spec=f"nodeName: {node}"), "-n", "default")
        f.kubectl("wait", "-n", "default", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        ips = {name: [entry["ip"] for entry in f.get("pod", name, "-n", "default")["status"]["podIPs"]] for name in ("one", "two", "three")}
        assert all([":" in ip for ip in each] == [False, True] for each in ips.values())
        nodes = [node["spec"]["podCIDRs"] for node in f.get("nodes")["items"]]
        assert sorted(nodes) == [["10.42.0.0/24", "fd42::/64"], ["10.42.1.0/24", "fd42:0:0:1::/64"]]
        for name, other in (("one", "two"), ("two", "one"), ("two", "three"), ("two", "two")):
            for target in ips[other]:
                wait_until(lambda name=name, target=target: pinged(f, name, target), seconds=5, what=f"{name} reaches {target}")
        address = f.kubectl("exec", "-n", "default", "one", "--", "ip", "-6", "addr", "show", "eth0")
        assert ips["one"][1] in address
