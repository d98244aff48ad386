"""Never two at once: both sides' decisions in a simulated world of partitions, delays, lost answers, drifting clocks, suspended machines,
crashes and restarts. The decision functions are the real ones; what is around them is as in controllers/fencing.py and kubelet/fence.py."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

import pytest

from edgekube.controllers.fencing import Step, View, patience, plan_step
from edgekube.kubelet.fence import Contact, plan_contact, stop_at, why_not

T, GRACE = 10.0, 2.0
BEAT = T / 5
LONG = 400.0  # seconds of a world


@dataclass
class Lease:
    revision: int = 1
    renewal: int = 0
    mark: bool = False


@dataclass
class Node:
    """An agent. Its boot clock has an offset and a speed of its own."""

    name: str
    offset: float
    speed: float
    contact: Contact = field(default_factory=Contact)
    known_revision: int = 0
    epoch: int = 0
    confirmed: set = field(default_factory=set)
    pods: set = field(default_factory=set)  # as its watch has told it
    runs: set = field(default_factory=set)
    alive: bool = True  # the process
    linked: bool = True
    life: int = 0
    asked_at: dict = field(default_factory=dict)

    def boot(self, now):
        return self.offset + now * self.speed


class World:
    def __init__(self, seed, *, ask=True):
        self.random = random.Random(seed)
        self.ask, self.now, self.events, self.count = ask, 0.0, [], itertools.count()
        self.nodes = {name: Node(name, self.random.uniform(1, 1e6), self.random.uniform(0.999, 1.001)) for name in ("a", "b", "c")}
        self.leases = {name: Lease() for name in self.nodes}
        self.pods = {}  # uid -> node: the API
        self.most = self.moves = 0
        self.reset_server()
        self.create()
        for name in self.nodes:
            self.at(self.random.uniform(0, BEAT), self.beat, name)
        self.at(0.1, self.control)
        for _ in range(self.random.randint(10, 40)):
            self.at(self.random.uniform(0, LONG * 0.8), self.trouble)

    def run(self):
        while self.events and self.events[0][0] < LONG:
            self.now, _, act, arguments = heapq.heappop(self.events)
            act(*arguments)
            for node in self.nodes.values():
                self.kubelet(node)
            self.most = max(self.most, sum(len(node.runs) for node in self.nodes.values()))

    def at(self, delay, act, *arguments):
        heapq.heappush(self.events, (self.now + delay, next(self.count), act, arguments))

    def delay(self):
        return self.random.choice((0.001, 0.01, 0.1, self.random.uniform(0, 3), self.random.uniform(0, 3 * T)))

    def send(self, node, act, *arguments):
        """A message between server and agent: lost without a link, in either half of its way, and with the process that waits for it."""
        if node.linked:
            life = node.life
            self.at(self.delay(), lambda: node.linked and node.life == life and act(*arguments))

    # the server

    def reset_server(self):
        self.life, self.started = object(), self.now
        self.seen, self.renewing, self.marked_at, self.busy = {}, set(), {}, {}

    def create(self):
        """The workload's owner: one pod, on any node that it believes in."""
        uid = f"p{next(self.count)}"
        name = self.random.choice([*self.nodes])
        self.pods[uid] = name
        self.at(self.delay(), self.watch, name, uid)

    def watch(self, name, uid):
        """The node hears of the pod, or that it is gone, some time after it is so."""
        node = self.nodes[name]
        if not (node.linked and node.alive):
            self.at(1.0, self.watch, name, uid)
        elif uid in self.pods:
            node.pods.add(uid)
        else:
            node.pods.discard(uid)

    def renew(self, name, revision, sent):
        node, lease = self.nodes[name], self.leases[name]
        if revision != lease.revision:
            self.send(node, self.conflicted, name, lease.revision)
            return
        lease.revision, lease.renewal = lease.revision + 1, lease.renewal + 1
        self.seen[name] = self.now
        self.renewing.add(name)
        self.send(node, self.answered, name, lease.revision, sent, lease.mark)

    def control(self):
        for name, lease in self.leases.items():
            if self.now >= self.busy.get(name, 0.0):  # one reconcile of a node at a time, and it waits for what it writes
                self.fence(name, lease)
        self.at(0.5, self.control)

    def fence(self, name, lease):
        if not lease.mark:
            self.marked_at.pop(name, None)
        mine = name in self.marked_at
        renewed = lease.renewal != self.marked_at[name] if mine else name in self.renewing
        here = [uid for uid, where in self.pods.items() if where == name]
        view = View(T, len(here), self.now - self.seen.get(name, self.started), lease.mark, mine, lease.mark and renewed)
        match plan_step(view):
            case Step.MARK:  # decided on what was read; written a little later
                takes = self.random.choice((0.0, 0.2, 2.0))
                self.busy[name] = self.now + takes + 0.01
                self.at(takes, self.mark, name, lease.revision, lease.renewal, self.life)
            case Step.DELETE:
                for uid in here:
                    takes = self.random.choice((0.0, 0.3, 4.0))
                    self.busy[name] = max(self.busy.get(name, 0.0), self.now + takes + 0.01)
                    self.at(takes, self.delete, uid, self.life)
            case Step.RELEASE:
                lease.mark, lease.revision = False, lease.revision + 1
                self.marked_at.pop(name, None)

    def mark(self, name, revision, renewal, life):
        lease = self.leases[name]
        if life is self.life and lease.revision == revision:
            lease.mark, lease.revision = True, revision + 1
            self.marked_at[name] = renewal

    def delete(self, uid, life):
        if life is self.life and (name := self.pods.pop(uid, None)) is not None:
            self.moves += 1
            self.at(self.delay(), self.watch, name, uid)
            self.at(self.random.choice((0.0, 1.0)), self.create)

    # the agents

    def beat(self, name):
        node = self.nodes[name]
        if node.alive:
            self.send(node, self.renew, name, node.known_revision, node.boot(self.now))
        self.at(BEAT, self.beat, name)

    def conflicted(self, name, revision):
        node = self.nodes[name]
        if node.alive:
            node.known_revision = revision
            self.send(node, self.renew, name, revision, node.boot(self.now))

    def answered(self, name, revision, sent, mark):
        node = self.nodes[name]
        if not node.alive:
            return
        node.known_revision = max(node.known_revision, revision)
        if node.boot(self.now) >= stop_at(node.contact, T, float("inf")) or node.contact.marked:
            node.confirmed.clear()
            node.epoch += 1
        node.contact = plan_contact(sent, T, marked=mark)

    def asked(self, name, uid, epoch):
        self.send(self.nodes[name], self.told, name, uid, epoch, self.pods.get(uid) == name)

    def told(self, name, uid, epoch, yes):
        node = self.nodes[name]
        if yes and node.alive and epoch == node.epoch and node.boot(self.now) < stop_at(node.contact, T, float("inf")):
            node.confirmed.add(uid)

    def kubelet(self, node):
        boot = node.boot(self.now)
        if boot >= node.contact.dead_by:
            node.runs.clear()  # itself, or its guard
        if not node.alive:
            return
        node.runs &= node.pods
        for uid in node.pods - node.runs:
            why = why_not(node.contact, T, GRACE, boot, confirmed=uid in node.confirmed or not self.ask)
            if why is None:
                node.runs.add(uid)
            elif uid not in node.confirmed and not node.contact.marked and boot < stop_at(node.contact, T, GRACE):
                self.ask_about(node, uid)

    def ask_about(self, node, uid):
        """One question at a time, repeated when no answer came."""
        if self.now >= node.asked_at.get((uid, node.epoch), -1.0) + 2.0:
            node.asked_at[uid, node.epoch] = self.now
            self.send(node, self.asked, node.name, uid, node.epoch)

    # what goes wrong

    def trouble(self):
        node = self.nodes[self.random.choice([*self.nodes])]
        for_ = self.random.uniform(0, 4 * T)
        match self.random.choice(("cut", "cut", "cut all", "crash", "reboot", "suspend", "server", "lease")):
            case "cut":
                self.cut([node], for_)
            case "cut all":
                self.cut(self.nodes.values(), for_)
            case "crash":
                node.alive, node.life = False, node.life + 1
                self.at(for_, self.revive, node)
            case "reboot":
                node.alive, node.life, node.offset, node.contact = False, node.life + 1, -self.now * node.speed, Contact()
                node.runs.clear()
                node.pods.clear() if self.random.random() < 0.3 else None
                self.at(for_, self.revive, node)
            case "suspend":
                self.cut([node], for_)
            case "server":
                self.reset_server()
            case "lease":  # its journal lost what was not on disk yet
                self.leases[node.name] = Lease(revision=self.leases[node.name].revision + 10)
                self.reset_server()

    def cut(self, nodes, seconds):
        for node in nodes:
            node.linked = False
            self.at(seconds, setattr, node, "linked", True)

    def revive(self, node):
        node.alive = True
        node.life += 1
        node.confirmed.clear()
        node.epoch += 1
        for uid, name in self.pods.items():
            if name == node.name:
                self.at(self.delay(), self.watch, name, uid)


def lived(seed, **options):
    world = World(seed, **options)
    world.run()
    return world


@pytest.mark.parametrize("seed", range(300))
def test_never_two_at_once(seed):
    assert lived(seed).most <= 1


def test_the_worlds_are_worth_something():
    """Pods do move in them, and a node that does not ask before it starts again is caught."""
    assert sum(lived(seed).moves for seed in range(20)) > 200
    assert any(lived(seed, ask=False).most > 1 for seed in range(100))


def test_the_server_waits_longer_than_the_node():
    for promise in (1.0, 6.0, 60.0, 3600.0):
        contact = plan_contact(0.0, promise, marked=False)
        assert stop_at(contact, promise, 30.0) < contact.dead_by < promise < patience(promise)


@pytest.mark.parametrize(
    ("view", "step"),
    [
        (View(10, 0, 99), Step.NOTHING),
        (View(None, 2, 99), Step.NOTHING),
        (View(10, 2, 10.9), Step.WAIT),
        (View(10, 2, 11), Step.MARK),
        (View(10, 2, 99, marked=True, mine=True), Step.DELETE),
        (View(10, 0, 99, marked=True, mine=True), Step.NOTHING),
        (View(10, 2, 1, marked=True, mine=True, renewed=True), Step.RELEASE),
        (View(10, 2, 1, marked=True, renewed=True), Step.RELEASE),
        (View(10, 2, 5, marked=True), Step.WAIT),
        (View(10, 2, 11, marked=True), Step.MARK),
    ],
)
def test_steps(view, step):
    assert plan_step(view) is step
