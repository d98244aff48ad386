"""Random acts on the wires, addresses and processes between agents and their server: as soon as the wires are whole, everything works."""

import random
import time

import pytest

from tests.e2e.manifests import pod
from tests.kit.machine import CommandFailed
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = [needs("root", "podman", "netns", "nft", "busybox", "kubectl"), pytest.mark.slow]

ROUNDS, HEAL_SECONDS = 20, 15


class Chaos:
    """Acts on a fleet, chosen by `seed`."""

    def __init__(self, f, seed):
        self.f, self.dice, self.done = f, random.Random(seed), []

    def act(self):
        acts = (self.block, self.lose, self.renumber, self.renumber_lan, self.unplug, self.kill_agent, self.kill_server, self.forget)
        chosen = self.dice.choices(acts, weights=(6, 4, 6, 2, 4, 1, 1, 3))[0]
        self.done.append(chosen.__name__)
        chosen(self.dice.choice(self.f.agents), self.dice.choice(self.f.nodes()))
        time.sleep(self.dice.random() * 2)

    def block(self, agent, _node):
        self.f.net.block(self.f.server.machine, agent.machine)

    def lose(self, agent, _node):
        self.f.net.drop(self.f.server.machine, agent.machine, percent=self.dice.choice((20, 50)))

    def renumber(self, _agent, node):
        self.f.net.renumber(node.machine)

    def renumber_lan(self, _agent, _node):
        self.f.net.renumber_lan(self.f.lan, f"10.{self.dice.randint(60, 90)}.{self.dice.randint(0, 250)}.0/24")

    def unplug(self, _agent, node):
        self.f.net.unplug(node.machine)
        time.sleep(self.dice.random())
        self.f.net.plug(node.machine)

    def kill_agent(self, agent, _node):
        agent.kill()
        agent.start()

    def kill_server(self, _agent, _node):
        self.f.server.kill()
        time.sleep(self.dice.random())
        self.f.server.start()

    def forget(self, _agent, node):
        node.machine.run("ip", "neigh", "flush", "all")


@pytest.mark.timeout(400)
def test_whatever_happens_agents_are_back_when_the_wires_are():
    seed = random.randrange(10**6)
    with fleet(agents=2) as f:
        names = [agent.name for agent in f.agents]
        for name in names:
            f.apply(pod(f"on-{name}", "echo hello; sleep 36000", spec=f"nodeName: {name}"))
            f.kubectl("wait", "--for=condition=Ready", f"pod/on-{name}", "--timeout=60s")

        def container(name):
            return f.get("pod", f"on-{name}")["status"]["containerStatuses"][0]["containerID"]

        def answers(name):
            try:
                return f.kubectl("logs", f"on-{name}", timeout=10) == "hello\n"
            except CommandFailed:
                return False

        before = {name: container(name) for name in names}
        chaos = Chaos(f, seed)
        for _ in range(ROUNDS):
            for _ in range(chaos.dice.randint(1, 4)):
                chaos.act()
            f.net.heal()
            for name in names:
                wait_until(lambda name=name: answers(name), seconds=HEAL_SECONDS, what=f"seed {seed}: {name} after {chaos.done[-6:]}")
        assert {name: container(name) for name in names} == before, f"seed {seed}"
        for node in f.nodes():
            assert [line for line in node.log_text().splitlines() if "Traceback" in line] == [], f"seed {seed}"
