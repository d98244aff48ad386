"""Cluster IPs and node ports: nobody gets what somebody has, and what is released can be had again."""

import pytest

from edgekube.api import catalog
from edgekube.apiserver.allocators import Full, OutOfRange, ServiceValues, Taken, address_pool, port_pool
from tests.unit.apiserver.world import World


def test_every_address_of_a_small_range_is_found_once() -> None:
    pool = address_pool("10.0.0.0/28")
    chosen = {pool.choose() for _ in range(14)}
    assert len(chosen) == 14
    assert not chosen & {"10.0.0.0", "10.0.0.15"}
    with pytest.raises(Full):
        pool.choose()
    pool.release("10.0.0.7")
    assert pool.choose() == "10.0.0.7"


def test_dynamic_choices_leave_the_lower_band_until_the_upper_is_full() -> None:
    pool = address_pool("10.0.0.0/24")  # band: 16
    upper = [pool.choose() for _ in range(254 - 16)]
    assert min(int(address.rsplit(".", 1)[1]) for address in upper) > 16
    assert int(pool.choose().rsplit(".", 1)[1]) <= 16


def test_explicit_addresses() -> None:
    pool = address_pool("10.43.0.0/16", spared=("10.43.0.10",))
    pool.take("10.43.0.10")
    with pytest.raises(Taken):
        pool.take("10.43.0.10")
    for outside in ("10.44.0.1", "10.43.0.0", "10.43.255.255", "fd00::1"):
        with pytest.raises(OutOfRange):
            pool.take(outside)


def test_ports() -> None:
    pool = port_pool(range(30000, 30004))
    pool.take(30001)
    assert {pool.choose() for _ in range(3)} == {30000, 30002, 30003}
    with pytest.raises(OutOfRange):
        pool.take(29999)


def test_a_reservation_and_the_stored_object_overlap_without_a_gap() -> None:
    pool = port_pool(range(30000, 30010))
    pool.take(30001)  # the write's reservation
    pool.hold(30001)  # the event of the stored object
    pool.release(30001)  # the write is done
    with pytest.raises(Taken):
        pool.take(30001)
    pool.release(30001)
    pool.take(30001)


async def test_stored_services_hold_what_they_say() -> None:
    world = World()
    spec = {"type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ports": [{"port": 80, "nodePort": 30080}]}
    await world.put(catalog.SERVICE, "web", "a", spec=spec)
    values = ServiceValues(objects=world.objects, service_cidr="10.43.0.0/16", node_ports=range(30000, 32768))
    with pytest.raises(Taken):
        values.addresses.take("10.43.0.9")
    with pytest.raises(Taken):
        values.ports.take(30080)
    await world.put(catalog.SERVICE, "web", "a", spec={"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]})
    values.ports.take(30080)
    values.addresses.take("10.43.0.9")
    await world.put(catalog.SERVICE, "db", "a", spec=spec | {"clusterIP": "10.43.0.8", "clusterIPs": ["10.43.0.8"], "ports": []})
    await world.drop(catalog.SERVICE, "db", "a")
    values.addresses.take("10.43.0.8")
    assert values.port_range == "30000-32767"
