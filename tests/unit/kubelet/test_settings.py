"""Small pure decisions: host files, security, resources, credentials, admission, restarts, names."""

import base64
import copy
from pathlib import Path

import orjson
import pytest

from edgekube.kubelet import hostfiles, podspec, resources, security
from edgekube.kubelet.admission import matches_node, refuse
from edgekube.kubelet.credentials import lookup
from edgekube.kubelet.demands import Demands, demand
from edgekube.kubelet.hostfiles import Resolver, parse_resolver, pod_resolver
from edgekube.kubelet.images import default_policy
from edgekube.kubelet.killer import container_grace
from edgekube.kubelet.reporter import merge_status, same
from edgekube.kubelet.restarts import CrashLoop
from tests.unit.kubelet.kit import image, pod, spec

HOST = parse_resolver("# x\nnameserver 9.9.9.9\nsearch corp.example.\noptions edns0\n")


@pytest.mark.parametrize(("fields", "servers", "search", "options"), [
    ({}, ["10.43.0.10"], ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"], ["ndots:5"]),
    ({"hostNetwork": True}, ["9.9.9.9"], ["corp.example"], ["edns0"]),
    ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}, ["10.43.0.10"],
     ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"], ["ndots:5"]),
    ({"dnsPolicy": "Default"}, ["9.9.9.9"], ["corp.example"], ["edns0"]),
    ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}]}},
     ["1.1.1.1"], ["a.b"], ["ndots:2"]),
    ({"dnsConfig": {"searches": ["a.b"], "options": [{"name": "ndots", "value": "1"}, {"name": "rotate"}]}}, ["10.43.0.10"],
     ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "a.b"], ["ndots:1", "rotate"]),
])  # fmt: skip
def test_resolvers(fields, servers, search, options):
    made = pod_resolver(pod(**fields), host=HOST, cluster_dns=("10.43.0.10",), domain="cluster.local")
    assert (list(made.servers), list(made.search), list(made.options)) == (servers, search, options)


def test_resolver_text():
    assert Resolver(servers=["1.1.1.1"], search=["a", "b"], options=["ndots:5"]).text == "search a b\nnameserver 1.1.1.1\noptions ndots:5\n"


def test_hosts():
    aliases = [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]
    text = hostfiles.hosts_text(pod(subdomain="sub", hostAliases=aliases), ips=("10.42.0.3",), domain="cluster.local")
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert "10.42.0.3\tweb.sub.default.svc.cluster.local\tweb\n" in text
    assert text.endswith("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    host = hostfiles.hosts_text(pod(hostNetwork=True), ips=(), domain="x", host_file="127.0.0.1 me\n")
    assert host == "# Kubernetes-managed hosts file (host network).\n127.0.0.1 me\n"


@pytest.mark.parametrize(("context", "user", "refusal"), [
    ({"runAsNonRoot": True}, "", "container has runAsNonRoot and image will run as root"),
    ({"runAsNonRoot": True}, "0", "container has runAsNonRoot and image will run as root"),
    ({"runAsNonRoot": True}, "app", "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root"),
    ({"runAsNonRoot": True, "runAsUser": 0}, "5", "container's runAsUser breaks non-root policy"),
    ({"runAsNonRoot": True}, "1000:1000", None),
    ({"runAsNonRoot": True, "runAsUser": 7}, "", None),
    ({}, "", None),
])  # fmt: skip
def test_run_as_non_root(context, user, refusal):
    own = spec(securityContext=context)
    if refusal is None:
        security.verify_non_root(pod(own), own, image(user))
        return
    with pytest.raises(security.ConfigRefused) as caught:
        security.verify_non_root(pod(own), own, image(user))
    assert str(caught.value) == f'{refusal} (pod: "web_default(u1)", container: main)'


def test_security_is_merged():
    own = spec(securityContext={"runAsUser": 5, "allowPrivilegeEscalation": False, "capabilities": {"add": ["net_admin"], "drop": ["ALL"]}})
    shared = {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"}}
    made = security.security(pod(own, securityContext=shared), own, seccomp_dir=Path("/seccomp"))
    assert (made.user, made.group, made.groups, made.no_new_privileges) == (5, 2, (4, 3), True)
    assert (made.capabilities_add, made.capabilities_drop, made.seccomp) == (("NET_ADMIN",), ("ALL",), "")
    assert security.security(pod(), spec(), seccomp_dir=Path("/seccomp")).seccomp == "unconfined"
    privileged = spec(securityContext={"privileged": True})
    assert security.security(pod(privileged), privileged, seccomp_dir=Path("/x")).masked_paths is False


@pytest.mark.parametrize(("stated", "qos_score"), [
    ({}, 1000),
    ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, -997),
    ({"requests": {"memory": "1Gi"}}, 875),
    ({"requests": {"memory": "8Gi"}}, 3),
    ({"requests": {"cpu": "1"}}, 999),
])  # fmt: skip
def test_oom_score(stated, qos_score):
    own = spec(resources=stated)
    assert resources.oom_score_adj(pod(own), own, node_memory=8 << 30) == qos_score


def test_cgroup_figures():
    own = spec(resources={"limits": {"cpu": "500m", "memory": "64Mi"}})
    made = resources.container_resources(pod(own), own, node_memory=1 << 30)
    assert (made.cpu_shares, made.cpu_quota, made.cpu_period, made.memory_limit) == (512, 50_000, 100_000, 64 << 20)
    half = resources.pod_resources(pod(own, spec("b")))
    assert (half.cpu_quota, half.memory_limit) == (0, 0)
    assert resources.cpu_shares(0) == 2


def docker_config(auths):
    return {"data": {".dockerconfigjson": base64.b64encode(orjson.dumps({"auths": auths})).decode()}}


@pytest.mark.parametrize(("registry", "name", "found"), [
    ("https://index.docker.io/v1/", "busybox", True),
    ("docker.io", "library/busybox:1", True),
    ("quay.io", "busybox", False),
    ("quay.io", "quay.io/a/b:1", True),
    ("quay.io/a", "quay.io/a/b", True),
    ("quay.io/c", "quay.io/a/b", False),
    ("*.example.com", "eu.example.com/x", True),
    ("*.example.com", "example.com/x", False),
    ("reg:5000", "reg:5000/x", True),
])  # fmt: skip
def test_pull_secrets(registry, name, found):
    auth = base64.b64encode(b"me:pa:ss").decode()
    made = lookup(name, [docker_config({registry: {"auth": auth}})])
    assert [(one.username, one.password) for one in made] == ([("me", "pa:ss")] if found else [])


@pytest.mark.parametrize(("name", "policy"), [
    ("busybox", "Always"), ("busybox:latest", "Always"), ("busybox:1", "IfNotPresent"), ("reg:5000/x", "Always"),
    ("x@sha256:" + "0" * 64, "IfNotPresent"), ("x:1@sha256:" + "0" * 64, "IfNotPresent"),
])  # fmt: skip
def test_default_pull_policy(name, policy):
    assert default_policy(name) == policy


NODE = {
    "metadata": {"name": "n1", "labels": {"zone": "a", "cores": "4"}},
    "spec": {"taints": [{"key": "k", "effect": "NoExecute"}]},
    "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}},
}
TOLERANT = [{"operator": "Exists"}]


@pytest.mark.parametrize(("fields", "reason"), [
    ({}, "TaintToleration"),
    ({"tolerations": TOLERANT}, None),
    ({"tolerations": TOLERANT, "nodeSelector": {"zone": "b"}}, "NodeAffinity"),
    ({"tolerations": TOLERANT, "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "SysctlForbidden"),
])  # fmt: skip
def test_admission(fields, reason):
    found = refuse(pod(**fields), NODE, [])
    assert (found and found[0]) == reason


def test_admission_of_resources():
    big = pod(spec(resources={"requests": {"cpu": "1500m"}}), tolerations=TOLERANT)
    assert refuse(big, NODE, [demand(big)]) == (
        "OutOfcpu",
        "Node didn't have enough resource: cpu, requested: 1500, used: 1500, capacity: 2000",
    )
    small = pod(tolerations=TOLERANT)
    assert refuse(small, NODE, [demand(small)] * 3) == (
        "OutOfpods",
        "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
    )
    port = pod(spec(ports=[{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]), tolerations=TOLERANT)
    assert refuse(port, NODE, [demand(port)])[0] == "NodePorts"
    assert refuse(pod(), NODE, [], memory_pressure=True) == ("Evicted", "The node had condition: [MemoryPressure]. ")


@pytest.mark.parametrize(("operator", "values", "fits"), [
    ("In", ["a", "b"], True), ("NotIn", ["a"], False), ("Exists", [], True), ("DoesNotExist", [], False),
])  # fmt: skip
def test_affinity(operator, values, fits):
    terms = [{"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    assert matches_node(pod(affinity=affinity), NODE) is fits


def test_affinity_by_number_and_field():
    def fits(term):
        required = {"nodeSelectorTerms": [term]}
        return matches_node(pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}), NODE)

    assert fits({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["3"]}]})
    assert not fits({"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["3"]}]})
    assert fits({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})
    assert not fits({})


def test_crash_loop_doubles_and_forgets():
    loop, now, waits = CrashLoop(), 1000.0, []
    for _ in range(8):
        waits.append(loop.remaining("c", now, now))
        now += waits[-1]
        loop.restarted("c", now, now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert loop.remaining("c", now + 601, now + 601) == 0
    loop.restarted("c", now + 601, now + 601)
    assert loop.delay("c") == 10


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3661, "1h1m1s")])
def test_durations(seconds, text):
    assert podspec.seconds_text(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.012, "12ms"), (1.2, "1.2s"), (1.2345, "1.234s"), (62.5, "1m2.5s"), (0, "0s")])
def test_measured_durations(seconds, text):
    assert podspec.duration_text(seconds) in (text, "1.235s" if seconds == 1.2345 else text)


def test_grace():
    probe = spec(livenessProbe={"terminationGracePeriodSeconds": 7})
    assert container_grace(pod(probe, terminationGracePeriodSeconds=60), probe, "LivenessProbe") == 7
    assert container_grace(pod(probe, terminationGracePeriodSeconds=60), probe, "") == 60
    assert container_grace(pod(probe, deleting=True), probe, "LivenessProbe") == 30
    assert container_grace(pod(terminationGracePeriodSeconds=0), spec(), "") == 1


def test_statuses_are_merged_with_what_others_own():
    theirs = {"conditions": [{"type": "x/gate", "status": "True"}, {"type": "Ready", "status": "False"}], "nominatedNodeName": "n"}
    ours = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}, {"type": "x/gate", "status": "False"}]}
    made = merge_status(theirs, ours)
    assert {c["type"]: c["status"] for c in made["conditions"]} == {"x/gate": "True", "Ready": "True"}
    assert len(made["conditions"]) == 2
    assert made["nominatedNodeName"] == "n"
    assert same({"a": None, "b": [], "c": 1}, {"c": 1})
    assert not same({"c": 2}, {"c": 1})


def test_demands_are_worked_out_once_for_each_version_of_a_spec():
    first = pod(spec(resources={"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}))
    demands = Demands()
    found = demands.of(first)
    assert (found.burstable, found.requests["cpu"], found.requests["pods"]) == (100, 100, 1)
    assert demands.of(copy.deepcopy(first)) is found
    resized = copy.deepcopy(first)
    resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "200m"
    assert demands.of(resized).burstable == 200
    demands.drop(first["metadata"]["uid"])
    assert demands.of(first) == found
