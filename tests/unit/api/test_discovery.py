"""Discovery documents, against values a real cluster gives."""

import pytest

from edgekube.api import catalog, discovery

KINDS = catalog.KINDS


def test_storage_hashes_are_upstreams():
    assert discovery.storage_hash(catalog.POD) == "xPOwRZ+Yhw8="
    assert discovery.storage_hash(catalog.CONTROLLER_REVISION) == "85nkx63pcBU="


def test_groups_and_versions():
    groups = discovery.api_groups(KINDS)
    assert groups["kind"] == "APIGroupList"
    assert [group["name"] for group in groups["groups"]][:2] == ["apps", "events.k8s.io"]
    apps = discovery.api_group(KINDS, "apps")
    assert apps == {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": "apps",
        "versions": [{"groupVersion": "apps/v1", "version": "v1"}],
        "preferredVersion": {"groupVersion": "apps/v1", "version": "v1"},
    }
    assert discovery.api_group(KINDS, "nope") is None
    assert discovery.api_resources(KINDS, "apps", "v9") is None
    assert discovery.api_versions("1.2.3.4:6443")["versions"] == ["v1"]


def test_resources():
    found = {resource["name"]: resource for resource in discovery.api_resources(KINDS, "apps", "v1")["resources"]}
    assert found["deployments"]["shortNames"] == ["deploy"]
    assert found["deployments"]["verbs"] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    assert found["deployments/scale"] == {
        "name": "deployments/scale",
        "singularName": "",
        "namespaced": True,
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
        "verbs": ["get", "patch", "update"],
    }
    assert found["deployments/status"]["kind"] == "Deployment"


def test_core_resources():
    document = discovery.api_resources(KINDS, "", "v1")
    assert document["groupVersion"] == "v1"
    found = {resource["name"]: resource for resource in document["resources"]}
    assert found["pods/eviction"]["kind"] == "Eviction"
    assert found["pods/eviction"]["group"] == "policy"
    assert found["pods/log"]["kind"] == "Pod"
    assert found["pods/exec"] == {
        "name": "pods/exec", "singularName": "", "namespaced": True, "kind": "PodExecOptions", "verbs": ["create", "get"]
    }  # fmt: skip
    assert found["nodes"]["namespaced"] is False


def test_aggregated():
    core = discovery.aggregated(KINDS, core=True)
    assert core["kind"] == "APIGroupDiscoveryList"
    assert len(core["items"]) == 1
    pods = next(found for found in core["items"][0]["versions"][0]["resources"] if found["resource"] == "pods")
    assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert pods["scope"] == "Namespaced"
    assert {"subresource": "log", "responseKind": {"group": "", "version": "v1", "kind": "Pod"}, "verbs": ["get"]} in pods["subresources"]
    assert [item["metadata"]["name"] for item in discovery.aggregated(KINDS, core=False)["items"]] == discovery.groups(KINDS)[1:]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (discovery.AGGREGATED + ",application/json", True),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList," + discovery.AGGREGATED, True),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_negotiation(accept, wanted):
    assert discovery.accepts_aggregated(accept) is wanted


def test_version_order():
    from dataclasses import replace

    kinds = [replace(catalog.DEPLOYMENT, version=version) for version in ("v1beta1", "v2", "v1alpha1", "v1", "v10", "v2beta1")]
    assert discovery.versions(kinds, "apps") == ["v10", "v2", "v1", "v2beta1", "v1beta1", "v1alpha1"]
