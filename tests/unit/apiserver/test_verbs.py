"""Every verb on a server without a network: codes, reasons, messages and what is stored."""

import asyncio

import pytest

from tests.kit.api import CONFIG_MAPS, Api, config_map


async def test_create_fills_metadata_and_get_gives_the_same():
    api = Api()
    status, made = await api("POST", CONFIG_MAPS, config_map("a", resourceVersion="", uid="mine", creationTimestamp=None))
    assert status == 201
    metadata = made["metadata"]
    assert metadata["namespace"] == "default"
    assert metadata["uid"] not in ("", "mine")
    assert metadata["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert int(metadata["resourceVersion"]) == api.store.revision
    assert await api("GET", f"{CONFIG_MAPS}/a") == (200, made)


async def test_create_refusals():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    status, answer = await api("POST", CONFIG_MAPS, config_map("a"))
    assert (status, answer["reason"], answer["message"]) == (409, "AlreadyExists", 'configmaps "a" already exists')
    assert answer["details"] == {"name": "a", "kind": "configmaps"}
    status, answer = await api("POST", CONFIG_MAPS, config_map("b", namespace="other"))
    assert (status, answer["message"]) == (
        400,
        "the namespace of the provided object does not match the namespace sent on the request",
    )
    status, answer = await api("POST", CONFIG_MAPS, config_map("b", resourceVersion="7"))
    assert (status, answer["message"]) == (500, "resourceVersion should not be set on objects to be created")
    status, answer = await api("POST", CONFIG_MAPS, config_map(""))
    assert status == 422
    assert {"reason": "FieldValueRequired", "message": "Required value: name or generateName is required", "field": "metadata.name"} in answer[
        "details"
    ]["causes"]
    status, answer = await api("POST", CONFIG_MAPS, config_map("Not_Valid"))
    assert status == 422
    assert answer["details"]["causes"][0]["field"] == "metadata.name"
    status, answer = await api("POST", CONFIG_MAPS, b"{not json")
    assert (status, answer["reason"]) == (400, "BadRequest")
    assert answer["message"].startswith("the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind")
    status, answer = await api("POST", CONFIG_MAPS, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})
    assert status == 400
    status, answer = await api("POST", CONFIG_MAPS, {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "x"}})
    assert answer["message"] == "the API version in the data (v2) does not match the expected API version (v1)"


async def test_create_where_it_has_no_address():
    api = Api()
    assert (await api("POST", "/api/v1/configmaps", config_map("a")))[0] == 405
    assert (await api("GET", "/api/v1/configmaps/a"))[0] == 404
    assert (await api("GET", "/api/v1/namespaces/default/nodes"))[0] == 404
    assert (await api("GET", "/api/v1/nothings"))[0] == 404
    assert (await api("PUT", CONFIG_MAPS, config_map("a")))[0] in (404, 405)
    assert (await api("DELETE", "/api/v1/namespaces"))[0] == 405


async def test_generated_names():
    api = Api()
    made = await api.ok("POST", CONFIG_MAPS, {"metadata": {"generateName": "web-"}})
    name = made["metadata"]["name"]
    assert name.startswith("web-")
    assert len(name) == 9
    assert set(name[4:]) <= set("bcdfghjklmnpqrstvwxz2456789")
    long = await api.ok("POST", CONFIG_MAPS, {"metadata": {"generateName": "x" * 80}})
    assert len(long["metadata"]["name"]) == 63


async def test_dry_run_stores_nothing():
    api = Api()
    before = api.store.revision
    status, made = await api("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a"))
    assert status == 201
    assert "resourceVersion" not in made["metadata"]
    assert made["metadata"]["uid"]
    assert api.store.revision == before
    assert (await api("POST", f"{CONFIG_MAPS}?dryRun=Some", config_map("a")))[0] == 422
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    assert (await api("POST", f"{CONFIG_MAPS}?dryRun=All", config_map("a")))[0] == 409
    revision = api.store.revision
    await api.ok("PUT", f"{CONFIG_MAPS}/a?dryRun=All", config_map("a", {"k": "new"}))
    await api.ok("DELETE", f"{CONFIG_MAPS}/a?dryRun=All", {"dryRun": ["All"]})
    assert api.store.revision == revision


async def test_unknown_fields():
    api = Api()
    bad = config_map("a") | {"surprise": 1}
    status, answer = await api("POST", f"{CONFIG_MAPS}?fieldValidation=Strict", bad)
    assert status == 400
    assert 'unknown field "surprise"' in answer["message"]
    answer = await api("POST", CONFIG_MAPS, bad)
    assert answer[0] == 201
    assert answer.headers["Warning"] == '299 - "unknown field \\"surprise\\""'
    assert "surprise" not in answer[1]
    assert "Warning" not in (await api("POST", f"{CONFIG_MAPS}?fieldValidation=Ignore", config_map("b") | {"surprise": 1})).headers
    assert (await api("POST", f"{CONFIG_MAPS}?fieldValidation=Sometimes", bad))[0] == 422


async def test_update_and_optimistic_concurrency():
    api = Api()
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    path = f"{CONFIG_MAPS}/a"
    changed = await api.ok("PUT", path, made | {"data": {"k": "2"}})
    assert changed["data"] == {"k": "2"}
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    status, answer = await api("PUT", path, made | {"data": {"k": "3"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert (await api.ok("PUT", path, config_map("a", {"k": "4"})))["data"] == {"k": "4"}  # unconditional
    status, answer = await api("PUT", path, config_map("a", uid="another"))
    assert status == 409
    assert "Precondition failed: UID in precondition: another, UID in object meta: " in answer["message"]
    status, answer = await api("PUT", path, config_map("b"))
    assert answer["message"] == "the name of the object (b) does not match the name on the URL (a)"
    status, answer = await api("PUT", path, config_map("a", namespace="other"))
    assert answer["message"] == "the namespace of the object (other) does not match the namespace on the request (default)"
    assert (await api("PUT", f"{CONFIG_MAPS}/zzz", config_map("zzz")))[0] == 404


async def test_an_update_that_changes_nothing_costs_no_revision():
    api = Api()
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    revision = api.store.revision
    assert await api.ok("PUT", f"{CONFIG_MAPS}/a", made) == made
    assert await api.ok("PATCH", f"{CONFIG_MAPS}/a", {"data": {"k": "v"}}, {"content-type": "application/merge-patch+json"}) == made
    assert api.store.revision == revision


async def test_put_creates_where_the_kind_lets_it():
    api = Api()
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/a"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {"holderIdentity": "me"}}
    status, made = await api("PUT", path, lease)
    assert status == (201 if api.server.find_kind("coordination.k8s.io", "v1", "leases").allow_create_on_update else 404)
    if status == 201:
        assert (await api("PUT", f"{path}x", lease | {"metadata": {"name": "ax", "uid": made["metadata"]["uid"]}}))[0] == 409


async def test_concurrent_patches_all_land():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a", {}))
    headers = {"content-type": "application/merge-patch+json"}
    await asyncio.gather(*(api.ok("PATCH", f"{CONFIG_MAPS}/a", {"data": {f"k{n}": "v"}}, headers) for n in range(30)))
    assert len((await api.ok("GET", f"{CONFIG_MAPS}/a"))["data"]) == 31


async def test_patch_kinds():
    api = Api()
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    path = f"{CONFIG_MAPS}/a"

    async def patch(kind, body):
        return await api("PATCH", path, body, {"content-type": f"application/{kind}-patch+json"})

    assert (await patch("json", [{"op": "add", "path": "/data/x", "value": "1"}]))[1]["data"] == {"k": "v", "x": "1"}
    assert (await patch("merge", {"data": {"k": None}}))[1]["data"] == {"x": "1"}
    assert (await patch("strategic-merge", {"metadata": {"labels": {"l": "1"}}}))[1]["metadata"]["labels"] == {"l": "1"}
    status, answer = await patch("merge", {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"q": "1"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert (await patch("nonsense", {}))[0] == 415
    assert (await patch("json", [{"op": "test", "path": "/data/x", "value": "2"}]))[0] == 422
    assert (await patch("merge", {"metadata": {"name": "b"}}))[0] == 400
    assert (await api("PATCH", f"{CONFIG_MAPS}/zzz", {}, {"content-type": "application/merge-patch+json"}))[0] == 404


async def test_server_side_apply():
    api = Api()
    headers = {"content-type": "application/apply-patch+yaml"}
    path = f"{CONFIG_MAPS}/a?fieldManager="
    body = config_map("a", {"mine": "1"})
    status, made = await api("PATCH", path + "one", body, headers)
    assert status == 201
    assert made["metadata"]["managedFields"][0]["manager"] == "one"
    status, _ = await api("PATCH", path + "one", body, headers)
    assert status == 200
    status, answer = await api("PATCH", path + "two", config_map("a", {"mine": "2"}), headers)
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["details"]["causes"][0]["reason"] == "FieldManagerConflict"
    status, answer = await api("PATCH", path + "two&force=true", config_map("a", {"mine": "2"}), headers)
    assert answer["data"] == {"mine": "2"}
    status, answer = await api("PATCH", path + "one", b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n", headers)
    assert (status, answer["data"]) == (200, {"mine": "2"})
    assert (await api("PATCH", f"{CONFIG_MAPS}/a", body, headers))[0] in (400, 422)


async def test_delete_answers_and_preconditions():
    api = Api()
    made = await api.ok("POST", CONFIG_MAPS, config_map("a"))
    path = f"{CONFIG_MAPS}/a"
    status, answer = await api("DELETE", path, {"preconditions": {"uid": "another"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    status, answer = await api("DELETE", path, {"preconditions": {"resourceVersion": "1"}})
    assert status == 409
    status, answer = await api("DELETE", path, {"propagationPolicy": "Sideways"})
    assert status in (400, 422)
    status, answer = await api("DELETE", path)
    assert status == 200
    assert answer["status"] == "Success"
    assert answer["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await api("DELETE", path))[0] == 404
    assert (await api("GET", path))[1]["message"] == 'configmaps "a" not found'


async def test_finalizers_keep_an_object_until_the_last_is_removed():
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a", finalizers=["x.io/one"]))
    path = f"{CONFIG_MAPS}/a"
    kept = await api.ok("DELETE", path)
    assert kept["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert kept["metadata"]["deletionGracePeriodSeconds"] == 0
    again = await api.ok("DELETE", path)
    assert again["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]
    status, answer = await api("POST", CONFIG_MAPS, config_map("a"))
    assert answer["message"] == 'object is being deleted: configmaps "a" already exists'
    status, answer = await api("PATCH", path, {"metadata": {"finalizers": ["x.io/one", "x.io/two"]}}, MERGE)
    assert status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer["message"]
    await api.ok("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
    assert (await api("GET", path))[0] == 404


MERGE = {"content-type": "application/merge-patch+json"}


@pytest.mark.parametrize(("policy", "expected"), [("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"])])
async def test_propagation_leaves_a_finalizer_for_the_garbage_collector(policy, expected):
    api = Api()
    await api.ok("POST", CONFIG_MAPS, config_map("a"))
    kept = await api.ok("DELETE", f"{CONFIG_MAPS}/a?propagationPolicy={policy}")
    assert kept["metadata"]["finalizers"] == expected
    background = await api.ok("DELETE", f"{CONFIG_MAPS}/a", {"propagationPolicy": "Background"})
    assert background.get("status") == "Success"


async def test_deletecollection_with_selectors():
    api = Api()
    for name in ("a", "b", "c"):
        await api.ok("POST", CONFIG_MAPS, config_map(name, labels={"l": name}))
    answer = await api.ok("DELETE", f"{CONFIG_MAPS}?labelSelector=l%20in%20(a,b)")
    assert answer["kind"] == "ConfigMapList"
    assert [item["metadata"]["name"] for item in answer["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in (await api.ok("GET", CONFIG_MAPS))["items"]] == ["c"]


async def test_namespace_life():
    api = Api()
    made = await api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}})
    path = "/api/v1/namespaces/n"
    kept = await api.ok("DELETE", path)
    assert kept["status"]["phase"] == "Terminating"
    assert kept["metadata"]["deletionTimestamp"]
    assert kept["spec"]["finalizers"] == ["kubernetes"]
    assert (await api.ok("DELETE", path))["metadata"]["uid"] == made["metadata"]["uid"]
    finalized = await api.ok("PUT", f"{path}/finalize", {"metadata": {"name": "n"}, "spec": {}})
    assert not (finalized.get("spec") or {}).get("finalizers")
    assert (await api("GET", path))[0] == 404


async def test_status_and_spec_are_written_apart():
    api = Api()
    node = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.0.0/24"}}
    await api.ok("POST", "/api/v1/nodes", node)
    both = node | {"spec": {"podCIDR": "10.42.0.0/24", "unschedulable": True}, "status": {"nodeInfo": {"kernelVersion": "6.1"}}}
    spec = await api.ok("PUT", "/api/v1/nodes/n", both)
    assert spec["spec"]["unschedulable"] is True
    assert "kernelVersion" not in str(spec.get("status"))
    status = await api.ok("PATCH", "/api/v1/nodes/n/status", {"spec": {"unschedulable": False}, "status": {"phase": "Running"}}, MERGE)
    assert status["status"]["phase"] == "Running"
    assert status["spec"]["unschedulable"] is True
    assert (await api.ok("GET", "/api/v1/nodes/n/status"))["status"]["phase"] == "Running"


PODS = "/api/v1/namespaces/default/pods"


def pod(name, **spec):
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}


async def test_pods_end_gracefully():
    api = Api()
    await api.ok("POST", PODS, pod("a", nodeName="n", terminationGracePeriodSeconds=20))
    kept = await api.ok("DELETE", f"{PODS}/a")
    assert kept["kind"] == "Pod"
    assert (kept["metadata"]["deletionTimestamp"], kept["metadata"]["deletionGracePeriodSeconds"]) == ("2026-01-01T00:00:20Z", 20)
    assert kept["metadata"]["generation"] == 2
    api.clock.advance(3)
    assert (await api.ok("DELETE", f"{PODS}/a"))["metadata"] == kept["metadata"]
    assert (await api.ok("DELETE", f"{PODS}/a?gracePeriodSeconds=25"))["metadata"] == kept["metadata"]
    shorter = await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 5})
    assert (shorter["metadata"]["deletionTimestamp"], shorter["metadata"]["deletionGracePeriodSeconds"]) == ("2026-01-01T00:00:05Z", 5)
    gone = await api.ok("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0, "preconditions": {"uid": kept["metadata"]["uid"]}})
    assert gone["kind"] == "Pod"
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_pods_that_run_nowhere_go_at_once():
    api = Api()
    await api.ok("POST", PODS, pod("a"))
    assert (await api.ok("DELETE", f"{PODS}/a"))["kind"] == "Pod"
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_a_pod_with_a_finalizer_outlives_its_grace():
    api = Api()
    await api.ok("POST", PODS, {**pod("a", nodeName="n"), "metadata": {"name": "a", "finalizers": ["x.io/one"]}})
    await api.ok("DELETE", f"{PODS}/a")
    kept = await api.ok("DELETE", f"{PODS}/a?gracePeriodSeconds=0")
    assert kept["metadata"]["deletionGracePeriodSeconds"] == 0
    await api.ok("PATCH", f"{PODS}/a", {"metadata": {"finalizers": []}}, MERGE)
    assert (await api("GET", f"{PODS}/a"))[0] == 404


async def test_applying_what_is_not_there_needs_leave_to_create():
    api = Api()
    api.who.denied.add(("create", "configmaps"))
    status, _ = await api("PATCH", f"{CONFIG_MAPS}/a?fieldManager=x", config_map("a"), {"content-type": "application/apply-patch+yaml"})
    assert status == 403


async def test_scale():
    api = Api()
    path = "/apis/apps/v1/namespaces/default/deployments"
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    await api.ok("POST", path, {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": labels}, "template": template}})
    scale = await api.ok("GET", f"{path}/web/scale")
    assert (scale["apiVersion"], scale["kind"], scale["spec"]) == ("autoscaling/v1", "Scale", {"replicas": 1})
    assert scale["status"]["selector"] == "app=web"
    changed = await api.ok("PUT", f"{path}/web/scale", scale | {"spec": {"replicas": 4}})
    assert changed["spec"] == {"replicas": 4}
    assert (await api("PUT", f"{path}/web/scale", scale | {"spec": {"replicas": 5}}))[0] == 409
    assert (await api.ok("PATCH", f"{path}/web/scale", {"spec": {"replicas": 2}}, MERGE))["spec"] == {"replicas": 2}
    status, answer = await api("PATCH", f"{path}/web/scale", {"spec": {"replicas": -2}}, MERGE)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "spec.replicas")
    stored = await api.ok("GET", f"{path}/web")
    assert (stored["spec"]["replicas"], stored["metadata"]["generation"]) == (2, 3)


async def test_events_are_reaped_by_age():
    from edgekube.apiserver.component import reap_events

    api = Api()
    event = {"involvedObject": {"namespace": "default", "name": "p"}, "metadata": {"name": "old"}}
    await api.ok("POST", "/api/v1/namespaces/default/events", event)
    api.clock.advance(1000)
    await api.ok("POST", "/api/v1/namespaces/default/events", event | {"metadata": {"name": "new"}})
    assert await reap_events(api.server, api.clock, 500) == 1
    assert [item["metadata"]["name"] for item in (await api.ok("GET", "/api/v1/events"))["items"]] == ["new"]
