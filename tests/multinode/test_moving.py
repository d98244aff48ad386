"""A machine gets another address while it runs: everything that names it follows, and nothing is restarted."""

import sys
import time

from tests.e2e.manifests import pod
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

SECONDS = 10
TRUSTED = "import ssl, socket, sys; c = ssl.create_default_context(cafile=sys.argv[1]); s = socket.create_connection((sys.argv[2], 6443), 3); c.wrap_socket(s, server_hostname=sys.argv[2])"


def address(f, name="server"):
    return next(entry["address"] for entry in f.get("node", name)["status"]["addresses"] if entry["type"] == "InternalIP")


def trusted(f, target):
    """Whether a client that checks the certificate gets through to the server at this address."""
    command = (sys.executable, "-c", TRUSTED, str(f.server.data / "pki" / "ca.crt"), target)
    f.server.machine.run(*command)
    return True


def within(condition, began, what):
    wait_until(condition, seconds=SECONDS - (time.monotonic() - began), what=what)


def test_a_server_that_moves(tmp_path):
    with fleet(agents=0) as f:
        f.apply(pod("web", "sleep 3600"), "-n", "default")
        f.apply(pod("onhost", "sleep 3600", spec="hostNetwork: true"), "-n", "default")
        f.kubectl("wait", "-n", "default", "--for=condition=Ready", "pod/web", "pod/onhost", "--timeout=60s")
        before = f.get("pods", "-n", "default")["items"]
        for renumber in (
            lambda: f.net.renumber(f.server.machine, "10.99.0.77"),
            lambda: (f.net.renumber_lan(f.lan, "10.98.0.0/24"), f.net.address(f.server.machine))[1],
        ):
            new, began = renumber(), time.monotonic()
            within(lambda new=new: address(f) == new, began, "the Node has the new address")
            within(lambda new=new: new in str(f.get("endpoints", "kubernetes", "-n", "default")["subsets"]), began, "endpoints")
            within(lambda new=new: new in str(f.get("endpointslice", "kubernetes", "-n", "default")["endpoints"]), began, "slice")
            within(lambda new=new: f.get("pod", "onhost", "-n", "default")["status"]["podIP"] == new, began, "pods on the host's network")
            within(lambda new=new: f.get("pod", "web", "-n", "default")["status"]["hostIP"] == new, began, "pods' hostIP")
            assert trusted(f, new)
            f.ready()
            print(f"moved in {time.monotonic() - began:.1f} s")
        after = f.get("pods", "-n", "default")["items"]
        for old, now in zip(before, after, strict=True):
            assert now["metadata"]["uid"] == old["metadata"]["uid"]
            assert now["status"]["containerStatuses"][0]["containerID"] == old["status"]["containerStatuses"][0]["containerID"]
            assert now["status"]["containerStatuses"][0]["restartCount"] == 0
        assert f.get("pod", "web", "-n", "default")["status"]["podIP"] == before[1]["status"]["podIP"]
        assert f.server.log_text().count("edgekube is ready") == 1


def test_an_address_that_comes_late(tmp_path):
    """Started with `lo` alone: a whole cluster, whose node moves to the first address there is."""
    with fleet(agents=0, start=False) as f:
        f.server.machine.sh("ip link del eth0; ip route flush table main; ip addr flush dev lo scope global; true")
        f.server.start()
        wait_until(lambda: f.condition("server") == "True", what="Ready with lo alone")
        assert address(f) == "10.42.0.1"
        f.net._lay(f.server.machine, f.net.cables["server"][0])
        began = time.monotonic()
        new = f.net.address(f.server.machine)
        within(lambda: address(f) == new, began, "the Node has the address")
        assert trusted(f, new)


def pod_ip(f, name):
    return f.get("pod", name, "-n", "default")["status"]["podIP"]


def pinged(f, name, target):
    """Whether one echo from a pod comes back."""
    try:
        return " 0% packet loss" in f.kubectl("exec", "-n", "default", name, "--", "ping", "-c1", "-W1", target, timeout=10)
    except Exception:
        return False


def test_everybody_moves_to_another_lan():
    """A server and an agent, pods on both: every machine gets an address of another subnet at once."""
    with fleet(agents=1) as f:
        for name, node in (("one", "server"), ("two", "agent-1")):
            f.apply(pod(name, "sleep 3600", spec=f"nodeName: {node}"), "-n", "default")
        f.kubectl("wait", "-n", "default", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
        ips = {name: pod_ip(f, name) for name in ("one", "two")}
        wait_until(lambda: pinged(f, "one", ips["two"]), seconds=5, what="pods of two nodes reach each other")
        containers = [entry["status"]["containerStatuses"][0]["containerID"] for entry in f.get("pods", "-n", "default")["items"]]
        f.net.renumber_lan(f.lan, "10.97.0.0/24")
        began = time.monotonic()
        for node in f.nodes():
            new = f.net.address(node.machine)
            within(lambda node=node, new=new: address(f, node.name) == new, began, f"{node.name} has its new address")
            within(lambda node=node: f.condition(node.name) == "True", began, f"{node.name} is Ready")
        within(lambda: pinged(f, "one", ips["two"]), began, "pods reach each other again")
        print(f"all moved in {time.monotonic() - began:.1f} s")
        after = f.get("pods", "-n", "default")["items"]
        assert [entry["status"]["containerStatuses"][0]["containerID"] for entry in after] == containers
        assert {entry["metadata"]["name"]: entry["status"]["podIP"] for entry in after} == ips
        line = f"server {f.net.address(f.server.machine)}: Passed"
        wait_until(lambda: line in f.agents[0].edgekube("check", "--network", check=False), seconds=10, what=line)
