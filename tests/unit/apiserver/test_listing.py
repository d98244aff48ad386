"""list and its options; forms of answers."""

import json

import pytest
import yaml

from tests.kit.api import CONFIG_MAPS, Api, config_map


async def filled(count=5, **options):
    api = Api(**options)
    for number in range(count):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{number}", labels={"odd": str(number % 2)}))
    return api


def names(answer):
    return [item["metadata"]["name"] for item in answer["items"]]


async def test_list_is_in_order_and_says_its_revision():
    api = await filled()
    answer = await api.ok("GET", CONFIG_MAPS)
    assert (answer["kind"], answer["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(answer) == ["c0", "c1", "c2", "c3", "c4"]
    assert answer["metadata"] == {"resourceVersion": str(api.store.revision)}
    assert names(await api.ok("GET", "/api/v1/configmaps")) == names(answer)
    assert names(await api.ok("GET", "/api/v1/namespaces/other/configmaps")) == []


async def test_pages_show_one_state():
    api = await filled()
    first = await api.ok("GET", f"{CONFIG_MAPS}?limit=2")
    assert names(first) == ["c0", "c1"]
    assert first["metadata"]["remainingItemCount"] == 3
    await api.ok("POST", CONFIG_MAPS, config_map("c2a"))
    await api.ok("DELETE", f"{CONFIG_MAPS}/c3")
    second = await api.ok("GET", f"{CONFIG_MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert names(second) == ["c2", "c3"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    last = await api.ok("GET", f"{CONFIG_MAPS}?limit=2&continue={second['metadata']['continue']}")
    assert names(last) == ["c4"]
    assert "continue" not in last["metadata"]


async def test_a_token_that_is_too_old_offers_an_inconsistent_one():
    api = await filled(history=10)
    first = await api.ok("GET", f"{CONFIG_MAPS}?limit=2")
    for number in range(30):
        await api.ok("PUT", f"{CONFIG_MAPS}/c0", config_map("c0", {"k": str(number)}))
    status, answer = await api("GET", f"{CONFIG_MAPS}?limit=2&continue={first['metadata']['continue']}")
    assert (status, answer["reason"]) == (410, "Expired")
    assert answer["message"].startswith("The provided continue parameter is too old to display a consistent list result.")
    fresh = await api.ok("GET", f"{CONFIG_MAPS}?limit=2&continue={answer['metadata']['continue']}")
    assert names(fresh) == ["c2", "c3"]


async def test_selectors_and_limit():
    api = await filled()
    assert names(await api.ok("GET", f"{CONFIG_MAPS}?labelSelector=odd%3D1")) == ["c1", "c3"]
    page = await api.ok("GET", f"{CONFIG_MAPS}?labelSelector=odd%3D0&limit=2")
    assert names(page) == ["c0", "c2"]
    assert "remainingItemCount" not in page["metadata"]
    rest = await api.ok("GET", f"{CONFIG_MAPS}?labelSelector=odd%3D0&limit=2&continue={page['metadata']['continue']}")
    assert names(rest) == ["c4"]
    assert names(await api.ok("GET", f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc3")) == ["c3"]
    assert names(await api.ok("GET", f"{CONFIG_MAPS}?fieldSelector=metadata.name!%3Dc3")) == ["c0", "c1", "c2", "c4"]
    assert (await api("GET", f"{CONFIG_MAPS}?fieldSelector=data.k%3Dv"))[0] == 400
    assert (await api("GET", f"{CONFIG_MAPS}?labelSelector=a%20b"))[0] == 400


async def test_resource_versions():
    api = await filled()
    now = api.store.revision
    await api.ok("DELETE", f"{CONFIG_MAPS}/c0")
    assert len(names(await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={now}&resourceVersionMatch=Exact"))) == 5
    assert len(names(await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={now}&resourceVersionMatch=NotOlderThan"))) == 4
    assert len(names(await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion=0"))) == 4
    assert len(names(await api.ok("GET", f"{CONFIG_MAPS}?resourceVersion={now}&limit=10"))) == 5
    status, answer = await api("GET", f"{CONFIG_MAPS}?resourceVersion={now + 100}")
    assert (status, answer["reason"]) == (504, "Timeout")
    assert answer["message"] == f"Timeout: Too large resource version: {now + 100}, current: {now + 1}"
    assert answer["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    "query",
    ["resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Near",
     "resourceVersion=1&resourceVersionMatch=Exact&continue=x", "resourceVersion=a"],
)  # fmt: skip
async def test_options_that_contradict_each_other(query):
    status, answer = await (await filled(1))("GET", f"{CONFIG_MAPS}?{query}")
    assert (status, answer["reason"]) == (422, "Invalid")


async def test_continue_tokens_that_are_none():
    api = await filled(1)
    for token in ("x", "e30", "eyJ2IjoidjEifQ"):
        assert (await api("GET", f"{CONFIG_MAPS}?continue={token}"))[0] == 400
    assert (await api("GET", f"{CONFIG_MAPS}?continue=x&resourceVersion=3"))[0] == 400


TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
PARTIALS = {"accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


async def test_tables():
    api = await filled(2)
    answer = await api.ok("GET", CONFIG_MAPS, headers=TABLE)
    assert (answer["kind"], answer["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert answer["columnDefinitions"][0]["name"] == "Name"
    assert [row["cells"][0] for row in answer["rows"]] == ["c0", "c1"]
    assert answer["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    one = await api.ok("GET", f"{CONFIG_MAPS}/c0?includeObject=Object", headers=TABLE)
    assert one["rows"][0]["object"]["kind"] == "ConfigMap"


async def test_metadata_only():
    api = await filled(2)
    answer = await api.ok("GET", CONFIG_MAPS, headers=PARTIALS)
    assert answer["kind"] == "PartialObjectMetadataList"
    assert "data" not in answer["items"][0]
    one = await api.ok("GET", f"{CONFIG_MAPS}/c0", headers=PARTIAL)
    assert (one["kind"], one["metadata"]["name"]) == ("PartialObjectMetadata", "c0")


async def test_media_types():
    api = await filled(1)
    path = f"{CONFIG_MAPS}/c0"
    status, answer = await api("GET", path, headers={"accept": "application/yaml"})
    assert status == 200
    assert b"kind: ConfigMap" in answer
    assert (await api("GET", path, headers={"accept": "application/cbor,application/json"}))[0] == 200
    status, answer = await api("GET", path, headers={"accept": "application/cbor"})
    assert (status, answer["reason"]) == (406, "NotAcceptable")
    status, answer = await api("POST", CONFIG_MAPS, b"k8s\0", {"content-type": "application/cbor"})
    assert status == 415
    yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  k: '1'\n"
    assert (await api("POST", CONFIG_MAPS, yaml, {"content-type": "application/yaml"}))[0] == 201
    assert b"\n  " in (await api.server.handle(api.request("GET", f"{path}?pretty=true"))).body


async def test_large_lists_are_streamed():
    api = Api()
    for number in range(120):
        await api.ok("POST", CONFIG_MAPS, config_map(f"c{number:03}", {"k": "x" * 4000}))
    answer = await api.ok("GET", CONFIG_MAPS)
    assert len(answer["items"]) == 120
    table = await api.ok("GET", CONFIG_MAPS, headers=TABLE)
    assert len(table["rows"]) == 120


async def test_two_views_of_one_event():
    api = Api()
    event = {
        "metadata": {"name": "e"}, "reason": "Started", "type": "Normal", "message": "m",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u"}, "source": {"component": "kubelet"},
    }  # fmt: skip
    await api.ok("POST", "/api/v1/namespaces/default/events", event)
    found = await api.ok("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert found["metadata"]["name"] == "e"


async def test_lists_for_people():
    api = await filled(3)
    plain = await api.ok("GET", CONFIG_MAPS)
    for count in (3, 0):
        _, answer = await api("GET", f"{CONFIG_MAPS}?limit=9&labelSelector={'x' * (not count)}", headers={"accept": "application/yaml"})
        assert len(yaml.safe_load(answer)["items"]) == count
        response = await api.server.handle(api.request("GET", f"{CONFIG_MAPS}?labelSelector={'x' * (not count)}", None, {"user-agent": "curl/8"}))
        assert len(json.loads(response.body)["items"]) == count
        assert response.body == (json.dumps(json.loads(response.body), indent=2) + "\n").encode()
    assert yaml.safe_load((await api("GET", CONFIG_MAPS, headers={"accept": "application/yaml"}))[1]) == plain
