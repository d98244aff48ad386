"""A server whose proxy mode changes at each start: Services answer in all of them, and of the mode before nothing stays."""

import pytest

from tests.e2e.manifests import web
from tests.kit import netns as ns
from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = [needs("root", "podman", "netns", "nft", "iptables", "busybox", "kubectl"), pytest.mark.slow]

LOOK = "nft list tables | grep -v -e policy -e nat -e filter -e mangle; iptables-save | grep EK-; ip route show table local proto 231; true"


def serves(c):
    """From the host and from a pod, by address, name and node port."""
    service = c.get("service", "web")["spec"]
    address, port = service["clusterIP"], service["ports"][0]["nodePort"]
    pods = {item["metadata"]["name"] for item in c.get("pods", "-l", "app=web")["items"]}
    for url in (f"http://{address}/", f"http://127.0.0.1:{port}/"):
        wait_until(lambda url=url: {c.fetch(url) for _ in range(20)} == pods, what=url)
    inside = c.kubectl("exec", sorted(pods)[0], "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -qO- http://web/; done")
    assert set(inside.split()) == pods


def test_services_answer_in_every_mode_and_the_old_one_goes(image):
    with cluster("--proxy-mode=iptables") as c:
        c.edgekube("images", "import", str(image))
        c.apply(web(2))
        c.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        serves(c)
        assert "EK-" in ns.inside(c.netns, LOOK)
        for mode in ("userspace", "nftables", "iptables"):
            c.kill()
            c.flags = [f"--proxy-mode={mode}"]
            c.start()
            found = wait_until(lambda mode=mode: _alone(c, mode), what=f"only rules of {mode}")
            assert found
            serves(c)
        c.uninstall()
        assert ns.inside(c.netns, LOOK) == ""


def _alone(c, mode):
    found = ns.inside(c.netns, LOOK)
    return ("table ip edgekube_" in found, "EK-" in found, "local 10.43." in found) == {
        "iptables": (False, True, False),
        "userspace": (True, False, True),
        "nftables": (True, False, False),
    }[mode]
