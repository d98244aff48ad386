"""The one connection of an agent over wires that break: cut, silently dropped, renumbered, behind NAT, with a server that dies."""

import re
import time
from datetime import datetime

import pytest

from tests.e2e.manifests import pod
from tests.kit import images
from tests.kit.machine import CommandFailed
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = [needs("root", "podman", "netns", "nft", "busybox", "kubectl"), pytest.mark.slow]

LOST, FOUND = "connection to the server lost", "connected to the server"


@pytest.fixture(scope="module")
def own():
    with fleet(agents=1) as found:
        found.apply(pod("web", "echo hello; sleep 3600", spec="nodeName: agent-1"))
        found.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        yield found


def count(node, text):
    return node.log_text().count(text)


def told(node, text, before, seconds):
    """Wait until the log says `text` once more than `before`; the seconds that took, by the log's own clock."""
    started = time.time()
    wait_until(lambda: count(node, text) > before, seconds=seconds, what=f"{node.name} says {text!r}\n{node.log_text()[-1500:]}")
    line = [line for line in node.log_text().splitlines() if text in line][before]
    return datetime.fromisoformat(re.match(r"\S+", line)[0]).timestamp() - started


def reaches(f, node="agent-1"):
    """The server's way to the kubelet, as soon as that knows its pods again, and the agent's to the server."""

    def good():
        try:
            return f.kubectl("logs", "web") == "hello\n" and f.condition(node) == "True"
        except CommandFailed:
            return False

    return wait_until(good, seconds=15)


def test_a_server_that_is_killed_and_comes_back_has_its_agent_at_once(own):
    agent = own.agents[0]
    before = count(agent, FOUND)
    own.server.kill()
    own.server.start()
    assert told(agent, FOUND, before, 10) < 2.0
    assert reaches(own)


def test_what_is_long_passes_whole_in_both_directions(own):
    size = 64 << 20
    assert own.kubectl("exec", "web", "--", "sh", "-c", f"dd if=/dev/zero bs=64k count={size >> 16} 2>/dev/null | wc -c").strip() == str(size)
    out = own.server.machine.base / "out"
    argv = " ".join(own._kubectl(own.server, "exec", "web", "--", "dd", "if=/dev/zero", "bs=64k", f"count={size >> 16}"))
    own.server.machine.sh(f"{argv} 2>/dev/null > {out}")
    assert out.stat().st_size == size
    back = " ".join(own._kubectl(own.server, "exec", "-i", "web", "--", "wc", "-c"))
    assert own.server.machine.sh(f"{back} < {out}").strip() == str(size)


def test_a_link_that_drops_everything_is_noticed_and_used_again_when_it_heals(own):
    agent = own.agents[0]
    lost, found = count(agent, LOST), count(agent, FOUND)
    own.net.block(own.server.machine, agent.machine)
    assert told(agent, LOST, lost, 25) < 20
    own.server.says("why='nothing was heard from the peer for", seconds=10)
    own.net.heal()
    assert told(agent, FOUND, found, 20) < 14
    assert reaches(own)


def test_a_server_with_another_address_is_found_by_itself(own):
    agent = own.agents[0]
    found = count(agent, FOUND)
    own.net.renumber(own.server.machine)
    assert told(agent, FOUND, found, 30) < 8
    assert reaches(own)


def test_an_agent_with_another_address_connects_anew_at_once(own):
    agent = own.agents[0]
    found = count(agent, FOUND)
    own.net.renumber(agent.machine)
    assert told(agent, FOUND, found, 30) < 2
    assert "the address that it was made from is gone" in agent.log_text()
    assert reaches(own)


def test_an_agent_that_starts_after_the_server_was_renumbered_asks_for_it(own):
    agent = own.agents[0]
    agent.stop()
    own.net.renumber(own.server.machine)
    own.net.renumber(own.server.machine)
    found = count(agent, FOUND)
    agent.start()
    assert told(agent, FOUND, found, 30) < 10
    assert reaches(own)


def test_a_lan_that_is_renumbered_with_everybody_on_it(own):
    agent = own.agents[0]
    found = count(agent, FOUND)
    own.net.renumber_lan(own.lan, "10.98.0.0/24")
    assert told(agent, FOUND, found, 30) < 10
    wait_until(lambda: own.condition("agent-1") == "True", seconds=10)
    assert reaches(own)


def test_an_agent_behind_nat_is_a_node_like_any_other():
    with fleet(agents=0) as f:
        shed = f.net.lan("192.168.7.0/24", nat=True)
        agent = f.add(f.net.machine("agent-1", shed))
        f.ready(agent)
        agent.edgekube("images", "import", str(images.archive(f.net.base / "busybox-nat.tar")))
        f.apply(pod("web", "echo hello; sleep 3600", spec="nodeName: agent-1"))
        f.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        assert reaches(f)
        assert f.kubectl("exec", "web", "--", "echo", "through").strip() == "through"


def test_a_revoked_node_is_cut_off_within_two_seconds(own):
    agent = own.agents[0]
    lost = count(agent, LOST)
    own.server.edgekube("node", "revoke", "agent-1")
    assert told(agent, LOST, lost, 10) < 2
