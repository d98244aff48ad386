"""Which backend is used, and that nothing of another stays."""

import asyncio

import pytest

from edgekube.config import ConfigError, load, shared, with_shared
from edgekube.proxy import ipvslink
from edgekube.proxy.backend import BackendError, Node
from edgekube.proxy.model import ANY4, Endpoint, Front, Target
from edgekube.proxy.modes import MODES, ChosenBackend, remove_leftovers
from tests.kit import netns as ns
from tests.kit.requires import has, needs

NODE = Node(instance="test", pods=("10.42.0.0/16",), services=("10.43.0.0/16",))
TARGETS = {
    Front("10.43.0.5", "tcp", 80): Target((Endpoint("10.42.0.5", 80, True),)),
    Front("10.43.0.5", "udp", 80): Target((Endpoint("10.42.0.5", 80, True),), affinity_seconds=5),
    Front(ANY4, "tcp", 30080): Target((Endpoint("10.42.1.5", 80),), masquerade=True),
    Front("198.51.100.9", "tcp", 80): Target((Endpoint("10.42.1.5", 80),), masquerade=True),
}
LOOK = "nft list tables | grep edgekube; iptables-save | grep EK-; ip route show table local proto 231; cat /proc/net/ip_vs 2>/dev/null | tail -n +4; true"


class Fake:
    """Refuses everything, or what has Services."""

    def __init__(self, name, works):
        self.name, self._works, self.seen, self.closed = name, works, [], False

    def watch(self, notify):
        if self._works is False:
            raise OSError("no such events")

    async def replace(self, targets):
        self.seen.append(targets)
        if self._works is False or (self._works == "empty" and targets):
            raise BackendError(f"no {self.name}")

    async def apply(self, old, new):
        self.seen.append((old, new))

    def close(self):
        self.closed = True


async def chosen(wanted, works, **options):
    made, told = [], []

    def maker(mode, _node):
        made.append(Fake(mode, works.get(mode, True)))
        return made[-1]

    backend = ChosenBackend(NODE, wanted=wanted, passed=lambda *what: told.append(what), maker=maker, **options)
    backend.watch(lambda: None)
    await backend.replace(TARGETS)
    return backend, made, told


@pytest.fixture
def untouched(monkeypatch):
    """No rules are looked for."""
    removed = []

    async def remove(_node, *, keep=""):
        removed.append(keep)
        return []

    monkeypatch.setattr("edgekube.proxy.modes.remove_leftovers", remove)
    return removed


async def test_the_next_is_taken_where_the_kernel_can_not(untouched):
    backend, made, told = await chosen("", {"nftables": False, "iptables": False})
    assert [fake.name for fake in made] == ["nftables", "iptables", "userspace"]
    assert [fake.closed for fake in made] == [True, True, False]
    assert backend.name == "userspace"
    assert told == [("nftables", "userspace", "nftables: no nftables; iptables: no iptables")]
    assert untouched == ["userspace"]


async def test_a_refusal_of_services_alone_is_no_reason_to_change(untouched):
    with pytest.raises(BackendError, match="no nftables"):
        await chosen("", {"nftables": "empty"})
    assert untouched == []


async def test_what_works_is_asked_once_and_nobody_is_told(untouched):
    _, made, told = await chosen("iptables", {})
    assert [fake.seen for fake in made] == [[TARGETS]]
    assert told == []


async def test_the_old_mode_is_taken_away_once(untouched, tmp_path):
    await chosen("nftables", {}, run_dir=tmp_path)
    await chosen("nftables", {}, run_dir=tmp_path)
    assert untouched == ["nftables"]
    await chosen("iptables", {}, run_dir=tmp_path)
    assert untouched == ["nftables", "iptables"]


async def test_a_change_that_was_cut_off_is_completed(untouched, tmp_path, monkeypatch):
    await chosen("nftables", {}, run_dir=tmp_path)

    async def killed(_node, *, keep=""):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("edgekube.proxy.modes.remove_leftovers", killed)
        await chosen("iptables", {}, run_dir=tmp_path)
    await chosen("nftables", {}, run_dir=tmp_path)
    assert untouched == ["nftables", "nftables"]


@needs("root", "netns", "nft", "iptables")
def test_a_node_that_changes_its_mode_keeps_nothing_of_the_old(tmp_path):
    modes = [mode for mode in MODES if mode != "ipvs" or has("ipvs")]

    async def use(path, mode):
        backend = ChosenBackend(NODE, wanted=mode, run_dir=tmp_path)
        await backend.replace(TARGETS)
        backend.close()
        return ns.inside(path, LOOK)

    async def scenario(path):
        for mode in modes:
            assert await use(path, mode)
            await remove_leftovers(NODE)
            assert ns.inside(path, LOOK) == ""
        for mode in (*modes, *reversed(modes)):
            found = await use(path, mode)
            assert ("table ip edgekube_test" in found) == (mode != "iptables")
            assert ("EK-test-" in found) == (mode == "iptables")
            assert ("local 10.43." in found) == (mode in ("ipvs", "userspace"))

    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario(path)))


def test_agents_take_the_servers_mode_unless_theirs_is_set():
    server = load({"proxy-mode": "iptables"}, environ={}, file={})
    assert with_shared(load({}, environ={}, file={}), shared(server)).proxy_mode == "iptables"
    assert with_shared(load({"proxy-mode": "userspace"}, environ={}, file={}), shared(server)).proxy_mode == "userspace"
    with pytest.raises(ConfigError, match=r"--proxy-mode: 'lvs' is not one of nftables, iptables, ipvs, userspace"):
        load({"proxy-mode": "lvs"}, environ={}, file={})


def test_ipvs_is_refused_where_the_kernel_has_none(monkeypatch):
    from edgekube.app.preflight import refusals

    if not ipvslink.missing():
        pytest.skip("NOT TESTED HERE: the kernel has ip_vs")
    found = refusals(load({"proxy-mode": "ipvs", "https-port": "1"}, environ={}, file={}))
    assert "--proxy-mode=ipvs: the kernel has no IPVS (module ip_vs): modprobe ip_vs, or use another mode" in found
