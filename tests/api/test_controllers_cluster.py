"""The small ones on a live API server: accounts, root CA, node ranges, aggregation, lost pods."""

import asyncio
import base64

from edgekube.api.catalog import CLUSTER_ROLE, CONFIG_MAP, EVENT, NAMESPACE, NODE, POD, SECRET, SERVICE_ACCOUNT
from edgekube.apiserver.tokens import TokenSigner
from edgekube.controllers.base import Settings
from edgekube.controllers.podgc import QUARANTINE
from edgekube.lib import pki
from edgekube.lib.clock import FakeClock
from tests.api.controlplane import bare_pod, control_plane, gone, make_namespace


async def test_every_namespace_has_an_account_and_the_root_ca():
    async with control_plane(settings=Settings(ca_pem="PEM")) as plane:
        await make_namespace(plane, "x")
        await plane.until(lambda: plane.get(SERVICE_ACCOUNT, "default", "x") and plane.get(CONFIG_MAP, "kube-root-ca.crt", "x"))
        assert plane.get(CONFIG_MAP, "kube-root-ca.crt", "x")["data"] == {"ca.crt": "PEM"}
        old = plane.get(SERVICE_ACCOUNT, "default", "x")["metadata"]["uid"]
        await plane.client.delete(SERVICE_ACCOUNT, "default", "x")
        await plane.until(lambda: (plane.get(SERVICE_ACCOUNT, "default", "x") or {"metadata": {"uid": old}})["metadata"]["uid"] != old)
        await plane.merge(CONFIG_MAP, "kube-root-ca.crt", {"data": {"ca.crt": "other", "more": "x"}}, "x")
        await plane.until(lambda: plane.get(CONFIG_MAP, "kube-root-ca.crt", "x")["data"] == {"ca.crt": "PEM"})
        await plane.client.delete(NAMESPACE, "x")
        await plane.until(lambda: plane.get(NAMESPACE, "x") is None)


async def test_secrets_get_tokens_of_their_account(tmp_path):
    key_file = tmp_path / "sa.key"
    key_file.write_bytes(pki.create_key())
    signer = TokenSigner(key_file, issuer="https://issuer")
    async with control_plane(settings=Settings(ca_pem="PEM"), signer=signer) as plane:

        def data(name):
            return {key: base64.b64decode(value).decode() for key, value in (plane.get(SECRET, name) or {}).get("data", {}).items()}

        async def made(name, account):
            annotations = {"kubernetes.io/service-account.name": account}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "annotations": annotations}}
            await plane.client.create(SECRET, secret | {"type": "kubernetes.io/service-account-token"}, "default")

        await plane.client.create(SERVICE_ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci"}}, "default")
        await made("ci-token", "ci")
        await plane.until(lambda: data("ci-token").get("token"))
        secret, account = plane.get(SECRET, "ci-token"), plane.get(SERVICE_ACCOUNT, "ci")
        claims = signer.verify(data("ci-token")["token"])
        assert (claims.name, claims.uid) == ("ci", account["metadata"]["uid"])
        assert claims.secret == ("ci-token", secret["metadata"]["uid"])
        assert (data("ci-token")["ca.crt"], data("ci-token")["namespace"]) == ("PEM", "default")
        assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]

        await plane.merge(SECRET, "ci-token", {"data": {"token": None}})
        await plane.until(lambda: data("ci-token").get("token") not in (None, ""))
        await made("orphan", "nobody")
        await plane.until(lambda: plane.get(SECRET, "orphan") is None)
        await plane.client.delete(SERVICE_ACCOUNT, "ci", "default")
        await plane.until(lambda: plane.get(SECRET, "ci-token") is None)


def node(name):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


async def test_nodes_get_ranges_of_their_own():
    async with control_plane(settings=Settings(cluster_cidrs=("10.42.0.0/22",))) as plane:
        for name in ("a", "b", "c", "d"):
            await plane.client.create(NODE, node(name))
        await plane.until(lambda: all(n["spec"].get("podCIDR") for n in plane.items(NODE)))
        ranges = {n["spec"]["podCIDR"]: n["spec"]["podCIDRs"] for n in plane.items(NODE)}
        assert sorted(ranges) == [f"10.42.{n}.0/24" for n in range(4)]
        freed = plane.get(NODE, "b")["spec"]["podCIDR"]
        await plane.client.create(NODE, node("e"))
        await plane.settle()
        assert not plane.get(NODE, "e")["spec"].get("podCIDR")
        await plane.client.delete(NODE, "b")
        await plane.until(lambda: plane.get(NODE, "e")["spec"].get("podCIDR") == freed)


async def test_nodes_get_a_range_of_each_family():
    async with control_plane(settings=Settings(cluster_cidrs=("10.42.0.0/16", "fd42::/63"))) as plane:
        for name in ("a", "b", "c"):
            await plane.client.create(NODE, node(name))
        await plane.until(lambda: sum(bool(n["spec"].get("podCIDR")) for n in plane.items(NODE)) == 2)
        ranges = sorted(n["spec"]["podCIDRs"] for n in plane.items(NODE) if n["spec"].get("podCIDR"))
        assert ranges == [["10.42.0.0/24", "fd42::/64"], ["10.42.1.0/24", "fd42:0:0:1::/64"]]

        without = next(n["metadata"]["name"] for n in plane.items(NODE) if not n["spec"].get("podCIDR"))
        async with asyncio.timeout(5):
            while without not in await refused(plane):
                await asyncio.sleep(0.01)


async def refused(plane):
    """Names of the nodes that an Event says got no range."""
    events = [item.decode() for item in (await plane.client.list(EVENT)).items]
    return [event["involvedObject"]["name"] for event in events if event["reason"] == "CIDRNotAvailable"]


def role(name, rules=(), labels=None, selects=None):
    obj = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name, "labels": labels or {}}}
    if selects:
        obj["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": selects}]}
    return obj | {"rules": list(rules)}


async def test_aggregated_roles_follow_their_parts():
    one, two = ({"apiGroups": [""], "resources": [name], "verbs": ["get"]} for name in ("pods", "secrets"))
    async with control_plane() as plane:
        await plane.client.create(CLUSTER_ROLE, role("sum", selects={"part": "yes"}))
        await plane.client.create(CLUSTER_ROLE, role("part-1", [one], {"part": "yes"}))
        await plane.client.create(CLUSTER_ROLE, role("part-2", [two], {"part": "no"}))
        await plane.until(lambda: plane.get(CLUSTER_ROLE, "sum").get("rules") == [one])
        await plane.merge(CLUSTER_ROLE, "part-2", {"metadata": {"labels": {"part": "yes"}}})
        await plane.until(lambda: plane.get(CLUSTER_ROLE, "sum").get("rules") == [one, two])
        await plane.client.delete(CLUSTER_ROLE, "part-1")
        await plane.until(lambda: plane.get(CLUSTER_ROLE, "sum").get("rules") == [two])


async def test_pods_of_a_lost_node_go_after_a_while():
    clock = FakeClock()
    async with control_plane(clock=clock, nodes=False) as plane:
        await plane.client.create(NODE, node("pi"))
        pod = bare_pod("lost")
        pod["spec"]["nodeName"] = "pi"
        await plane.client.create(POD, pod)
        await plane.until(lambda: plane.get(POD, "lost") is not None)
        await plane.client.delete(NODE, "pi")
        await plane.settle()
        assert plane.get(POD, "lost") is not None
        clock.advance(QUARANTINE)
        await plane.merge(POD, "lost", {"metadata": {"labels": {"look": "again"}}})
        await plane.until(lambda: plane.get(POD, "lost") is None)


async def test_the_oldest_finished_pods_go():
    async with control_plane(settings=Settings(terminated_pods=2), nodes=False) as plane:
        for number in range(5):
            await plane.client.create(POD, bare_pod(f"p{number}"))
            pod = await plane.client.get(POD, f"p{number}", "default")
            await plane.client.update(POD, pod | {"status": {"phase": "Succeeded"}}, subresource="status")
        await plane.until(lambda: len(plane.items(POD)) == 2)
        assert await gone(plane, POD, "p0")
