"""Services over the API: what was reserved for a refused write is free again, and what is deleted can be had again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.secured import Api, secured

PATH = "/api/v1/namespaces/default/services"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with secured(tmp_path) as made:
        yield made


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]} | spec}


def held(api: Api) -> tuple[int, int]:
    return len(api.values.addresses), len(api.values.ports)


async def test_reservations_never_leak(api: Api) -> None:
    start = held(api)
    assert start == (2, 0)
    refused = [
        service("bad name"),
        service("web", ports=[]),
        service("web", ports=[{"port": 80}, {"port": 0, "name": "x"}], type="NodePort"),
        service("web", clusterIP="10.43.0.1"),
        service("web", clusterIP="not an address"),
        service("web", type="NodePort", ports=[{"port": 80, "nodePort": 1}]),
    ]
    for body in refused:
        status, answer = await api.call("POST", PATH, body)
        assert status == 422, answer
        assert held(api) == start
    status, answer = await api.call("POST", f"{PATH}?dryRun=All", service("web", type="NodePort"))
    assert status == 201
    assert answer["spec"]["clusterIP"].startswith("10.43.")
    assert held(api) == start
    status, answer = await api.call("POST", PATH, service("web", type="NodePort"))
    assert status == 201
    assert held(api) == (3, 1)
    assert (await api.call("POST", PATH, service("web", type="NodePort")))[0] == 409
    assert held(api) == (3, 1)
    patch = {"spec": {"type": "ClusterIP"}}
    status, answer = await api.call("PATCH", f"{PATH}/web", patch, kind="application/merge-patch+json")
    assert status == 200, answer
    assert "nodePort" not in answer["spec"]["ports"][0]
    assert held(api) == (3, 0)
    assert (await api.call("DELETE", f"{PATH}/web"))[0] == 200
    assert held(api) == start


async def test_address_is_kept_and_cannot_be_changed(api: Api) -> None:
    _, made = await api.call("POST", PATH, service("web", clusterIP="10.43.7.7"))
    body = service("web", ports=[{"port": 81}])
    body["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    status, answer = await api.call("PUT", f"{PATH}/web", body)
    assert (status, answer["spec"]["clusterIP"]) == (200, "10.43.7.7")
    status, answer = await api.call(
        "PATCH", f"{PATH}/web", {"spec": {"clusterIP": "10.43.7.8", "clusterIPs": ["10.43.7.8"]}}, kind="application/merge-patch+json"
    )
    assert status == 422
    assert answer["message"].endswith('spec.clusterIPs[0]: Invalid value: ["10.43.7.8"]: may not change once set')
    assert held(api) == (3, 0)
    status, answer = await api.call("POST", PATH, service("other", clusterIP="10.43.7.7"))
    assert status == 422
    assert answer["details"]["causes"][0]["field"] == "spec.clusterIPs"
    assert "failed to allocate IP 10.43.7.7: provided IP is already allocated" in answer["message"]


async def test_the_first_service_of_a_missing_namespace(api: Api) -> None:
    status, answer = await api.call("POST", "/api/v1/namespaces/none/services", service("web"))
    assert (status, answer["message"]) == (404, 'namespaces "none" not found')
    status, answer = await api.call("DELETE", "/api/v1/namespaces/kube-system")
    assert (status, answer["message"]) == (403, 'namespaces "kube-system" is forbidden: this namespace may not be deleted')
