"""Agents run with the cluster's settings, whoever started them with what: they learn them, keep them, and follow when they change."""

import json

from tests.e2e.manifests import pod
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

OTHER = ("--cluster-cidr=10.52.0.0/16", "--service-cidr=10.53.0.0/16", "--cluster-dns=10.53.0.53", "--cluster-domain=shed.local")


def resolver(f, name):
    f.apply(pod(name, "sleep 3600", spec="nodeName: agent-1"))
    f.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    return f.kubectl("exec", name, "--", "cat", "/etc/resolv.conf")


def test_learnt_kept_and_followed():
    with fleet(agents=1, server_flags=OTHER) as f:
        found = resolver(f, "one")
        assert "nameserver 10.53.0.53" in found
        assert "svc.shed.local" in found
        assert f.get("pod", "one")["status"]["podIP"].startswith("10.52.1.")
        agent = f.agents[0]
        kept = json.loads((agent.data / "agent" / "cluster.json").read_text())
        assert (kept["cluster-domain"], kept["service-cidr"]) == ("shed.local", "10.53.0.0/16")

        f.server.stop()
        offset = agent.log.stat().st_size
        agent.stop()
        agent.start()
        f.server.flags[-1] = "--cluster-domain=barn.local"
        f.server.start()
        agent.says("settings of the cluster changed settings=cluster-domain", offset=offset)
        f.ready(agent)
        assert "svc.barn.local" in resolver(f, "two")
        assert f.get("pod", "one")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_an_agent_takes_the_servers_proxy_mode_unless_it_has_its_own():
    with fleet(agents=1, server_flags=("--proxy-mode=iptables",), image=False) as f:
        agent = f.agents[0]
        f.ready(agent)
        for node in (f.server, agent):
            wait_until(lambda node=node: _mode(node) == "iptables", what="rules of the server's mode")
        agent.stop()
        agent.flags.append("--proxy-mode=nftables")
        agent.start()
        wait_until(lambda: _mode(agent) == "nftables", what="rules of the agent's own mode")
        assert _mode(f.server) == "iptables"


def _mode(node):
    """Whose rules there are."""
    found = {"iptables": "iptables-save | grep -q EK-", "nftables": "nft list tables | grep -q 'edgekube_[0-9a-f]*$'"}
    return " and ".join(mode for mode, look in found.items() if node.machine.sh(f"{look} && echo yes || true").strip() == "yes")
