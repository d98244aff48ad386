"""Endpoints of local pods while the server is away."""

import asyncio

import pytest

from edgekube.api.catalog import ENDPOINT_SLICE, POD
from edgekube.api.types import Key
from edgekube.client.localendpoints import adjusted
from edgekube.errors import ServiceUnavailable
from tests.kit.cable import Cable
from tests.kit.remembering import remembering
from tests.unit.client.test_shadow import MINE, caching, names, pod, world


def ready(value, ip="10.42.1.2", **metadata):
    status = {"conditions": [{"type": "Ready", "status": "True" if value else "False"}], "podIPs": [{"ip": ip}, {"ip": "fd00::2"}]}
    return {"metadata": metadata, "status": status}


def endpoint(value, address="10.42.1.2", uid="u1", **conditions):
    known = {"ready": value, "serving": value, "terminating": False} | conditions
    return {"addresses": [address], "conditions": known, "targetRef": {"kind": "Pod", "uid": uid}}


@pytest.mark.parametrize(
    ("before", "pods", "publish", "after"),
    [
        (endpoint(True), {"u1": ready(True)}, False, None),
        (endpoint(True), {"u2": ready(False)}, False, None),  # of another node
        (endpoint(True), {"u1": ready(False)}, False, endpoint(False)),
        (endpoint(False), {"u1": ready(True)}, False, endpoint(True)),
        (endpoint(True), {"u1": ready(True, ip="10.42.1.9")}, False, endpoint(True, "10.42.1.9")),
        (endpoint(True), {"u1": ready(False)}, True, endpoint(True, serving=False)),
        (endpoint(True), {"u1": ready(True, deletionTimestamp="x")}, False, endpoint(False, serving=True, terminating=True)),
        ({"addresses": ["10.0.0.1"]}, {"u1": ready(False)}, False, None),
    ],
)
def test_adjusted(before, pods, publish, after):
    whole = {"addressType": "IPv4", "endpoints": [before]}
    assert adjusted(whole, pods, publish_all=publish) == (None if after is None else whole | {"endpoints": [after]})


def test_each_family_has_its_own():
    whole = {"addressType": "IPv6", "endpoints": [endpoint(True, "fd00::9")]}
    assert adjusted(whole, {"u1": ready(True)}, publish_all=False)["endpoints"][0]["addresses"] == ["fd00::2"]


async def test_a_cache_of_slices_follows_the_pods_of_this_node(tmp_path):
    async with world() as server:
        made = await server.create(POD, pod("a"))
        uid, key = made["metadata"]["uid"], Key("default", "web-1")
        made = await server.update(POD, made | {"status": ready(True)["status"] | {"phase": "Running"}}, subresource="status")
        slices = {
            "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 80}],
            "endpoints": [endpoint(True, uid=uid)],
        }
        kept = await server.create(ENDPOINT_SLICE, slices)
        cable = Cable(server)

        def is_ready(value):
            return lambda item: item is not None and item.decode()["endpoints"][0]["conditions"]["ready"] is value

        async def tell(client, value):
            with pytest.raises(ServiceUnavailable):
                await client.update(POD, made | {"status": ready(value)["status"]}, subresource="status")

        async with remembering(tmp_path, cable) as client, caching(client, ENDPOINT_SLICE, MINE) as cache, asyncio.timeout(5):
            cable.pull()
            for value in (False, True, False):
                await tell(client, value)
                await cache.wait_until(ENDPOINT_SLICE, key, is_ready(value))
        async with remembering(tmp_path, cable) as client, caching(client, ENDPOINT_SLICE) as cache, asyncio.timeout(5):
            assert is_ready(False)(cache.get(ENDPOINT_SLICE, key))  # after a restart alone, too
            await tell(client, True)
            await cache.wait_until(ENDPOINT_SLICE, key, is_ready(True))
            await tell(client, False)
            await cache.wait_until(ENDPOINT_SLICE, key, is_ready(False))
            cable.plug()  # the server knows better
            await cache.wait_until(ENDPOINT_SLICE, key, is_ready(True))
            assert cache.get(ENDPOINT_SLICE, key).decode() == kept
            assert await names(client) == ["a"]
