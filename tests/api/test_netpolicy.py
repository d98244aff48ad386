"""From a NetworkPolicy to the kernel: the API server, the controller, and the component of two nodes in namespaces of their own."""

import asyncio
import contextlib
import json
import subprocess

import pytest

from edgekube.api.catalog import NAMESPACE, NETWORK_POLICY, POD, POLICY_SLICE, SERVICE
from edgekube.api.kinds.policyslice import COMPLETE
from edgekube.apiserver.identity import User
from edgekube.apiserver.local import LocalClient
from edgekube.errors import Forbidden
from edgekube.netpolicy.attach import PolicedNetwork
from edgekube.netpolicy.component import NodePolicies, NotIsolated, PolicyConfig
from tests.api.controlplane import bare_pod, control_plane, make_namespace
from tests.kit import netns as ns
from tests.kit.requires import needs

HERE, TABLE = "here", "edgekube_t_policy"
kernel = needs("root", "netns", "nft")


def policy(name="p", **spec):
    about = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": about, "spec": {"podSelector": {}, **spec}}


FROM_WEB = {"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}


def spec_of(plane, name="p", namespace="default"):
    found = plane.get(POLICY_SLICE, name, namespace)
    return None if found is None else found["spec"]


async def put_pod(plane, name, *, node=HERE, ip="", namespace="default", **labels):
    pod = bare_pod(name, **labels)
    pod["metadata"]["namespace"] = namespace
    made = await plane.client.create(POD, pod | {"spec": pod["spec"] | {"nodeName": node}})
    if ip:
        made["status"] = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
        await plane.client.update(POD, made, subresource="status")
    return made["metadata"]["uid"]


async def test_a_slice_follows_its_policy_the_pods_and_the_namespaces():
    async with control_plane(nodes=False) as plane:
        await plane.until(lambda: plane.get(POLICY_SLICE, COMPLETE.name, COMPLETE.namespace) is not None)
        await put_pod(plane, "a", ip="10.42.0.7", app="web")
        await plane.client.create(NETWORK_POLICY, policy(**FROM_WEB))
        await plane.until(lambda: (spec_of(plane) or {}).get("peers", [{}])[0].get("nodes") == {HERE: ["10.42.0.7"]})
        assert spec_of(plane) == {
            "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"peers": [0]}],
            "peers": [{"namespaces": ["default"], "nodes": {HERE: ["10.42.0.7"]}, "podSelector": {"matchLabels": {"app": "web"}}}],
        }  # fmt: skip
        await put_pod(plane, "b", node="other", ip="10.42.1.7", app="web")
        await put_pod(plane, "c", node="other", ip="10.42.1.8", app="db")
        await plane.until(lambda: spec_of(plane)["peers"][0]["nodes"] == {HERE: ["10.42.0.7"], "other": ["10.42.1.7"]})
        await plane.merge(POD, "c", {"metadata": {"labels": {"app": "web"}}})
        await plane.until(lambda: spec_of(plane)["peers"][0]["nodes"].get("other") == ["10.42.1.7", "10.42.1.8"])
        await plane.client.delete(POD, "b", "default", grace_seconds=0)
        await plane.until(lambda: spec_of(plane)["peers"][0]["nodes"].get("other") == ["10.42.1.8"])
        await make_namespace(plane, "team")
        await put_pod(plane, "a", node="other", ip="10.42.1.9", namespace="team", app="web")
        await plane.merge(NETWORK_POLICY, "p", {"spec": {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"t": "1"}}}]}]}})
        await plane.until(lambda: "nodes" not in spec_of(plane)["peers"][0])
        await plane.merge(NAMESPACE, "team", {"metadata": {"labels": {"t": "1"}}})
        await plane.until(lambda: spec_of(plane)["peers"][0].get("nodes") == {"other": ["10.42.1.9"]})
        await plane.client.delete(POLICY_SLICE, "p", "default")  # somebody's hand
        await plane.until(lambda: spec_of(plane) is not None and spec_of(plane)["peers"][0].get("nodes") == {"other": ["10.42.1.9"]})
        await plane.client.delete(NETWORK_POLICY, "p", "default")
        await plane.until(lambda: spec_of(plane) is None)


async def test_dns_counts_as_pods_of_kube_system_and_ended_and_host_network_pods_do_not_count():
    async with control_plane(nodes=False) as plane:
        host = bare_pod("host", app="web")
        await plane.client.create(POD, host | {"spec": host["spec"] | {"nodeName": HERE, "hostNetwork": True}})
        await put_pod(plane, "a", ip="10.42.0.7", app="web")
        dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
        rules = [{"to": [dns], "ports": [{"port": "dns", "protocol": "UDP"}]}, {"to": [{"podSelector": {}}]}]
        await plane.client.create(NETWORK_POLICY, policy(policyTypes=["Egress"], egress=rules))
        await plane.until(lambda: (spec_of(plane) or {}).get("peers", [{}])[-1].get("nodes") == {HERE: ["10.42.0.7"]})
        first = spec_of(plane)["peers"][0]
        assert first["addresses"] == ["10.43.0.10"]
        assert first["named"] == [{"name": "dns", "protocol": "UDP", "port": 53, "addresses": ["10.43.0.10"]}]
        await plane.merge(POD, "a", {"status": {"phase": "Succeeded"}}, subresource="status")
        await plane.until(lambda: "nodes" not in spec_of(plane)["peers"][1])
        await plane.merge(SERVICE, "kube-dns", {"spec": {"selector": {"k8s-app": "kube-dns"}}}, "kube-system")
        await plane.until(lambda: "addresses" not in spec_of(plane)["peers"][0])  # real pods do it now


async def test_a_burst_is_written_a_few_times():
    async with control_plane(nodes=False) as plane:
        await plane.client.create(NETWORK_POLICY, policy(**FROM_WEB))
        await plane.until(lambda: spec_of(plane) is not None)
        before = int(plane.get(POLICY_SLICE, "p")["metadata"]["resourceVersion"])
        versions = set()
        plane.cache.on_change(POLICY_SLICE, lambda _old, new: versions.add(new.revision if new else 0))
        for number in range(40):
            await put_pod(plane, f"p{number}", ip=f"10.42.1.{number + 1}", app="web")
        await plane.until(lambda: len(spec_of(plane)["peers"][0].get("nodes", {}).get(HERE, ())) == 40)
        assert before < max(versions)
        assert len(versions) < 20


async def test_nodes_read_slices_and_change_nothing():
    async with control_plane(nodes=False) as plane:
        node = LocalClient(plane.server, User("system:node:here", ("system:nodes", "system:authenticated")))
        await plane.until(lambda: plane.get(POLICY_SLICE, COMPLETE.name, COMPLETE.namespace) is not None)
        assert len((await node.list(POLICY_SLICE)).items) == 1
        with pytest.raises(Forbidden):
            await node.list(NETWORK_POLICY)
        with pytest.raises(Forbidden):
            await node.delete(POLICY_SLICE, COMPLETE.name, COMPLETE.namespace)


# with a kernel


class Node:
    """The component of one node. What the pod network would know is `addresses`."""

    def __init__(self, plane, name=HERE):
        self.plane, self.addresses, self.static = plane, {}, {}
        client = LocalClient(plane.server, User(f"system:node:{name}", ("system:nodes", "system:authenticated")))
        self.policies = NodePolicies(
            config=PolicyConfig(node_name=name, instance="t"),
            client=client,
            addresses=lambda uid: self.addresses.get(uid, ()),
            pod=self.static.get,
        )
        self.network = PolicedNetwork(self, self.policies)

    async def attach(self, uid, _netns, _wanted=()):
        return self.addresses[uid]

    async def detach(self, uid):
        self.addresses.pop(uid, None)

    @contextlib.asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.policies.run(asyncio.Event()))
            try:
                yield self
            finally:
                task.cancel()

    async def learns(self):
        """Until it knows a policy."""
        async with asyncio.timeout(5):
            while self.policies._model.idle:
                await asyncio.sleep(0.01)

    async def start_pod(self, name, address, **labels):
        """As the kubelet does: the API has the pod, then it gets its address, then its first container starts."""
        uid = await put_pod(self.plane, name, **labels)
        self.addresses[uid] = (address,)
        await self.network.attach(uid, "")
        return uid


async def table():
    """Elements of each set and map; None: there is no table."""
    child = await asyncio.create_subprocess_exec("nft", "-j", "list", "table", "inet", TABLE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, _ = await child.communicate()
    if child.returncode != 0:
        return None
    try:
        entries = json.loads(out)["nftables"]
    except ValueError:  # so nft 1.0.6 shows a table that another process owns
        entries = ()
    found = {}
    for entry in entries:
        if rule := entry.get("rule"):
            found[f"rules of {rule['chain']}"] = found.get(f"rules of {rule['chain']}", 0) + 1
        one = entry.get("set") or entry.get("map")
        if one:
            found[one["name"]] = sorted(str(e[0] if isinstance(e, list) else e) for e in one.get("elem", ()))
    return found


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition(await table()):
            await asyncio.sleep(0.02)


async def nft(text):
    child = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=subprocess.PIPE)
    await child.communicate(text.encode())
    assert child.returncode == 0


def peers(found):
    return sorted(address for name, elements in (found or {}).items() if name.startswith("p4_") for address in elements)


def in_namespace(scenario):
    """Run the coroutine in a network namespace of its own, all its threads and children too."""
    with ns.namespace() as path:
        ns.call_inside(path, lambda: asyncio.run(scenario()))


@kernel
def test_a_pod_is_isolated_before_it_starts_and_the_table_is_there_only_while_it_is_needed():
    async def scenario():
        async with control_plane(nodes=False) as plane, Node(plane).running() as node:
            await node.start_pod("web", "10.42.0.7", app="web")
            await plane.client.create(NETWORK_POLICY, policy(podSelector={"matchLabels": {"app": "db"}}, **FROM_WEB))
            await node.learns()
            await plane.settle()
            assert await table() is None  # nobody here is selected
            uid = await node.start_pod("db", "10.42.0.8", app="db")
            found = await table()  # without any wait: attach has waited
            assert found["in4"] == ["10.42.0.8"]
            assert found["out4"] == []
            assert peers(found) == ["10.42.0.7"]
            await node.start_pod("web-2", "10.42.0.9", app="web")
            assert peers(await table()) == ["10.42.0.7", "10.42.0.9"]  # the server has no address of it yet
            await put_pod(plane, "far", node="other", ip="10.42.1.9", app="web")
            await until(lambda found: peers(found) == ["10.42.0.7", "10.42.0.9", "10.42.1.9"])
            await node.network.detach(uid)
            await until(lambda found: found is None)

    in_namespace(scenario)


@kernel
def test_a_flush_is_repaired_and_foreign_tables_stay():
    async def scenario():
        async with control_plane(nodes=False) as plane, Node(plane).running() as node:
            await plane.client.create(NETWORK_POLICY, policy(**FROM_WEB))
            await node.learns()
            await nft("add table inet foreign; add chain inet foreign c { type filter hook input priority 0 ; }")
            await node.start_pod("a", "10.42.0.7", app="web")
            whole = await table()
            for hurt in (f"flush table inet {TABLE}", f"delete table inet {TABLE}", f"delete element inet {TABLE} in4 {{ 10.42.0.7 }}"):
                await nft(hurt)
                await until(lambda found: found == whole, seconds=2)
                await plane.settle()
            child = await asyncio.create_subprocess_exec("nft", "list", "table", "inet", "foreign")
            assert await child.wait() == 0
            await plane.client.delete(NETWORK_POLICY, "p", "default")
            await until(lambda found: found is None)

    in_namespace(scenario)


@kernel
def test_rules_outlive_the_node_and_a_server_that_has_to_find_the_slices_again():
    async def scenario():
        async with control_plane(nodes=False) as plane:
            await plane.client.create(NETWORK_POLICY, policy(**FROM_WEB))
            await plane.until(lambda: spec_of(plane) is not None)
            node = Node(plane)
            async with node.running():
                await node.learns()
                await node.start_pod("a", "10.42.0.7", app="web")
            assert (await table())["in4"] == ["10.42.0.7"]
        # a new server: its memory has no slices, and no controller makes them yet
        async with control_plane(nodes=False, only=lambda name: name != "networkpolicy-controller") as plane:
            fresh = Node(plane)
            async with fresh.running():
                uid = await put_pod(plane, "a", app="web")
                fresh.addresses[uid] = ("10.42.0.7",)
                await plane.settle()
                assert (await table())["in4"] == ["10.42.0.7"]
                await plane.client.create(POLICY_SLICE, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}})
                await plane.settle()
                assert (await table())["out4"] == []  # not before it is said that all are there
                complete = {"metadata": {"name": COMPLETE.name, "namespace": COMPLETE.namespace}, "spec": {}}
                await plane.client.create(POLICY_SLICE, complete)
                await until(lambda found: found["in4"] == [] and found["out4"] == ["10.42.0.7"])
                # the server starts again under a node that goes on
                await plane.client.delete(POLICY_SLICE, COMPLETE.name, COMPLETE.namespace)
                await plane.client.delete(POLICY_SLICE, "q", "default")
                await plane.settle()
                assert (await table())["out4"] == ["10.42.0.7"]
                await plane.client.create(POLICY_SLICE, complete)
                await until(lambda found: found is None)

    in_namespace(scenario)


@kernel
def test_a_pod_that_cannot_be_isolated_does_not_start_and_others_do():
    async def scenario():
        async with control_plane(nodes=False) as plane, Node(plane).running() as node:
            # a table that belongs to another process: the kernel refuses every change of ours
            owner = await asyncio.create_subprocess_exec("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            owner.stdin.write(f"add table inet {TABLE} {{ flags owner; }}\n".encode())
            await owner.stdin.drain()
            await until(lambda found: found is not None)
            await plane.client.create(NETWORK_POLICY, policy(podSelector={"matchLabels": {"app": "db"}}))
            await node.learns()
            uid = await put_pod(plane, "db", app="db")
            node.addresses[uid] = ("10.42.0.8",)
            with pytest.raises(NotIsolated, match="nftables refuses"):
                await node.policies.isolate(uid, timeout=0.5)
            web = await put_pod(plane, "web", app="web")
            node.addresses[web] = ("10.42.0.9",)
            await node.policies.isolate(web, timeout=0.5)
            owner.stdin.close()
            await owner.wait()
            await node.policies.isolate(uid)
            assert (await table())["in4"] == ["10.42.0.8"]

    in_namespace(scenario)


@kernel
def test_a_static_pod_is_isolated_by_the_kubelets_picture_of_it_and_then_by_its_copy():
    async def scenario():
        async with control_plane(nodes=False) as plane, Node(plane).running() as node:
            await plane.client.create(NETWORK_POLICY, policy(podSelector={"matchLabels": {"app": "db"}}))
            await node.learns()
            node.static["own-uid"] = bare_pod("db-here", app="db")
            node.addresses["own-uid"] = ("10.42.0.8",)
            await node.network.attach("own-uid", "")  # the API has no copy of it, and may never have
            assert (await table())["in4"] == ["10.42.0.8"]
            copy = bare_pod("db-here", app="web")
            copy["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "own-uid"}
            await plane.client.create(POD, copy | {"spec": copy["spec"] | {"nodeName": HERE}})
            await until(lambda found: found is None)  # what the API says counts once it says something

    in_namespace(scenario)


async def test_a_pod_waits_for_its_policies_to_be_known_but_not_for_ever(caplog):
    async with control_plane(nodes=False, only=lambda name: name != "networkpolicy-controller") as plane, Node(plane).running() as node:
        uid = await put_pod(plane, "a", app="web")
        await node.policies.isolate(uid, timeout=0.05)
        assert "pod starts before its policies are known" in caplog.text


@kernel
def test_no_policy_costs_nothing():
    async def scenario():
        async with control_plane(nodes=False) as plane, Node(plane).running() as node:
            for number in range(3):
                await node.start_pod(f"p{number}", f"10.42.0.{number + 2}", app="web")
            assert await table() is None
            assert node.policies._table._watch is None
            assert node.policies._table._nft._library is None
            assert node.policies._model.uids() == ()

    in_namespace(scenario)
