"""Services get addresses, families and ports; nobody gets somebody else's; what is not used is given back."""

from typing import Any

import pytest

from edgekube.api import catalog
from edgekube.apiserver.admission.protocol import Admission
from edgekube.apiserver.admission.services import ServiceAllocation
from edgekube.apiserver.allocators import ServiceValues
from edgekube.apiserver.identity import User
from edgekube.errors import Invalid
from tests.unit.apiserver.world import World


class Scene:
    def __init__(self) -> None:
        self.world = World()
        self.values = ServiceValues(objects=self.world.objects, service_cidr="10.43.0.0/16", node_ports=range(30000, 32768))
        self.plugin = ServiceAllocation(self.values)

    async def admit(self, spec: dict[str, Any], old: dict[str, Any] | None = None, name: str = "web") -> Admission:
        obj = {"metadata": {"name": name, "namespace": "a"}, "spec": spec}
        request = Admission("UPDATE" if old else "CREATE", catalog.SERVICE, "a", name, "", User("ann"), obj, old and {"spec": old})
        await self.plugin.mutate(request)
        return request

    async def stored(self, spec: dict[str, Any], name: str = "web") -> dict[str, Any]:
        request = await self.admit(spec, name=name)
        await self.world.put(catalog.SERVICE, name, "a", spec=spec)
        request.finish()
        return spec

    @property
    def held(self) -> tuple[int, int]:
        return len(self.values.addresses), len(self.values.ports)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


def cluster(**more: Any) -> dict[str, Any]:
    return {"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP"}]} | more


async def test_plain_service_gets_an_address_and_the_family(scene: Scene) -> None:
    spec = await scene.stored(cluster())
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert spec["clusterIP"].startswith("10.43.")
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert scene.held == (1, 0)


async def test_a_write_that_is_given_up_gives_back(scene: Scene) -> None:
    request = await scene.admit(cluster(type="NodePort"))
    assert scene.held == (1, 1)
    request.finish()
    assert scene.held == (0, 0)


async def test_headless_and_external_name_hold_nothing(scene: Scene) -> None:
    spec = await scene.stored(cluster(clusterIP="None"))
    assert spec["clusterIPs"] == ["None"]
    other = await scene.stored({"type": "ExternalName", "externalName": "x.y"}, name="ext")
    assert "clusterIP" not in other
    assert "ipFamilies" not in other
    assert scene.held == (0, 0)


async def test_explicit_address_that_is_taken(scene: Scene) -> None:
    await scene.stored(cluster(clusterIP="10.43.0.7"))
    with pytest.raises(Invalid) as caught:
        await scene.admit(cluster(clusterIP="10.43.0.7"), name="other")
    (cause,) = caught.value.causes
    assert cause["field"] == "spec.clusterIPs"
    assert cause["message"].endswith("failed to allocate IP 10.43.0.7: provided IP is already allocated")
    with pytest.raises(Invalid, match="the provided network does not match the current range"):
        await scene.admit(cluster(clusterIP="10.99.0.7"), name="other")
    assert scene.held == (1, 0)


async def test_explicit_node_ports(scene: Scene) -> None:
    await scene.stored(cluster(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    with pytest.raises(Invalid) as caught:
        await scene.admit(cluster(type="NodePort", ports=[{"port": 80, "nodePort": 30080}]), name="other")
    assert (caught.value.causes[0]["field"], caught.value.causes[0]["message"]) == (
        "spec.ports[0].nodePort",
        "Invalid value: 30080: provided port is already allocated",
    )
    text = "provided port is not in the valid range. The range of valid ports is 30000-32767"
    with pytest.raises(Invalid, match=text):
        await scene.admit(cluster(type="NodePort", ports=[{"port": 80, "nodePort": 80}]), name="other")
    assert scene.held == (1, 1), "what a refused write had reserved is free again"


async def test_one_number_serves_both_protocols(scene: Scene) -> None:
    spec = await scene.stored(cluster(type="NodePort", ports=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]))
    assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]
    assert scene.held == (1, 1)


async def test_update_keeps_what_it_does_not_mention(scene: Scene) -> None:
    old = await scene.stored(cluster(type="NodePort"))
    new = cluster(type="NodePort", ports=[{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}])
    request = await scene.admit(new, old)
    assert new["clusterIP"] == old["clusterIP"]
    assert new["ports"][0]["nodePort"] == old["ports"][0]["nodePort"]
    assert new["ports"][1]["nodePort"] not in (None, old["ports"][0]["nodePort"])
    await scene.world.put(catalog.SERVICE, "web", "a", spec=new)
    request.finish()
    assert scene.held == (1, 2)


async def test_leaving_node_port_gives_the_ports_up(scene: Scene) -> None:
    old = await scene.stored(cluster(type="NodePort"))
    new = cluster(ports=[dict(old["ports"][0])])
    request = await scene.admit(new, old)
    assert "nodePort" not in new["ports"][0]
    await scene.world.put(catalog.SERVICE, "web", "a", spec=new)
    request.finish()
    assert scene.held == (1, 0)


async def test_becoming_external_gives_the_address_up_and_back_gets_a_new_one(scene: Scene) -> None:
    old = await scene.stored(cluster())
    new = {"type": "ExternalName", "externalName": "x.y"} | {
        name: old[name] for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
    }
    await scene.admit(new, old)
    assert set(new) == {"type", "externalName"}
    await scene.world.put(catalog.SERVICE, "web", "a", spec=new)
    assert scene.held == (0, 0)
    again = cluster()
    await scene.admit(again, new)
    assert again["clusterIP"].startswith("10.43.")


async def test_health_check_port_comes_and_goes_with_local_policy(scene: Scene) -> None:
    old = await scene.stored(cluster(type="LoadBalancer", externalTrafficPolicy="Local", allocateLoadBalancerNodePorts=False))
    assert 30000 <= old["healthCheckNodePort"] <= 32767
    assert "nodePort" not in old["ports"][0]
    new = cluster(
        type="LoadBalancer",
        externalTrafficPolicy="Cluster",
        allocateLoadBalancerNodePorts=False,
        healthCheckNodePort=old["healthCheckNodePort"],
    )
    await scene.admit(new, old)
    assert "healthCheckNodePort" not in new


async def test_two_families_are_refused_here(scene: Scene) -> None:
    with pytest.raises(Invalid, match="this cluster is not configured for dual-stack services"):
        await scene.admit(cluster(ipFamilyPolicy="RequireDualStack"))
    with pytest.raises(Invalid, match=r"spec.ipFamilies\[0\]: Invalid value: \"IPv6\": not configured on this cluster"):
        await scene.admit(cluster(ipFamilies=["IPv6"]))
    spec = cluster(ipFamilyPolicy="PreferDualStack")
    await scene.admit(spec)
    assert spec["ipFamilies"] == ["IPv4"]


async def test_changed_addresses_agree(scene: Scene) -> None:
    old = await scene.stored(cluster())
    new = cluster(clusterIP="10.43.0.9", clusterIPs=list(old["clusterIPs"]))
    await scene.admit(new, old)
    assert new["clusterIPs"] == ["10.43.0.9"]


async def test_sctp_is_refused_where_nothing_would_carry_it(scene: Scene) -> None:
    ports = [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "SCTP"}]
    with pytest.raises(Invalid, match=r"spec.ports\[1\].protocol: Forbidden: SCTP is not carried"):
        await scene.admit(cluster(ports=ports))
    await scene.admit(cluster(ports=ports, clusterIP="None"), name="headless")
    await scene.admit(cluster(ports=ports, clusterIP="10.43.0.9"), cluster(ports=ports, clusterIP="10.43.0.9", clusterIPs=["10.43.0.9"]))
