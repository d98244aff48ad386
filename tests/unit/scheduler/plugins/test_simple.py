"""Tables over the plugins that look at one node at a time. Cases follow upstream's plugin tests."""

import pytest

from edgekube.scheduler.plugins.imagelocality import ImageLocality
from edgekube.scheduler.plugins.nodeaffinity import NodeAffinity
from edgekube.scheduler.plugins.nodename import NodeName
from edgekube.scheduler.plugins.nodeports import NodePorts
from edgekube.scheduler.plugins.noderesources import NodeResourcesBalancedAllocation, NodeResourcesFit
from edgekube.scheduler.plugins.nodeunschedulable import NodeUnschedulable
from edgekube.scheduler.plugins.tainttoleration import TaintToleration
from tests.unit.scheduler.build import cluster, node_item, pod, scores, verdict

TAINT = {"key": "dedicated", "value": "user1", "effect": "NoSchedule"}


def reasons(found):
    return () if found is None else found.reasons


@pytest.mark.parametrize(("spec", "fits"), [({}, True), ({"nodeName": "n1"}, True), ({"nodeName": "other"}, False)])
def test_node_name(spec, fits):
    found = verdict(NodeName(), pod(**spec), cluster(node_item("n1")))
    assert reasons(found) == (() if fits else ("node(s) didn't match the requested node name",))


@pytest.mark.parametrize(
    ("cordoned", "tolerations", "fits"),
    [
        (False, [], True),
        (True, [], False),
        (True, [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}], True),
        (True, [{"operator": "Exists"}], True),
        (True, [{"key": "other", "operator": "Exists"}], False),
    ],
)
def test_cordoned(cordoned, tolerations, fits):
    found = verdict(NodeUnschedulable(), pod(tolerations=tolerations), cluster(node_item("n1", unschedulable=cordoned)))
    assert reasons(found) == (() if fits else ("node(s) were unschedulable",))
    assert fits or not found.resolvable


@pytest.mark.parametrize(
    ("taints", "tolerations", "fits"),
    [
        ([], [], True),
        ([TAINT], [], False),
        ([TAINT], [{"key": "dedicated", "value": "user1", "effect": "NoSchedule"}], True),
        ([TAINT], [{"key": "dedicated", "operator": "Equal", "value": "user2", "effect": "NoSchedule"}], False),
        ([TAINT], [{"key": "dedicated", "operator": "Exists"}], True),
        ([TAINT], [{"operator": "Exists", "effect": "NoExecute"}], False),
        ([TAINT], [{"operator": "Exists"}], True),
        ([TAINT], [{"value": "user1"}], False),
        ([TAINT | {"effect": "PreferNoSchedule"}], [], True),
        ([TAINT | {"effect": "NoExecute"}], [], False),
        ([TAINT, {"key": "more", "effect": "NoSchedule"}], [{"key": "dedicated", "operator": "Exists"}], False),
    ],
)
def test_taints(taints, tolerations, fits):
    found = verdict(TaintToleration(), pod(tolerations=tolerations), cluster(node_item("n1", taints=taints)))
    assert reasons(found) == (() if fits else ("node(s) had untolerated taint(s)",))


def test_fewer_soft_taints_are_better():
    soft = [{"key": key, "effect": "PreferNoSchedule"} for key in ("a", "b")]
    world = cluster(node_item("none"), node_item("one", taints=soft[:1]), node_item("two", taints=soft))
    assert scores(TaintToleration(), pod(), world) == {"none": 100, "one": 50, "two": 0}
    assert scores(TaintToleration(), pod(tolerations=[{"operator": "Exists"}]), world) == {"none": 100, "one": 100, "two": 100}


def affinity(*terms, **preferred):
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}} if terms else {}
    return {"affinity": {"nodeAffinity": required | preferred}}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, True),
        ({"nodeSelector": {"disk": "hdd"}}, False),
        ({"nodeSelector": {"disk": "ssd", "gpu": "yes"}}, False),
        (affinity(expression("disk", "In", "hdd", "ssd")), True),
        (affinity(expression("disk", "NotIn", "ssd")), False),
        (affinity(expression("gpu", "NotIn", "yes")), True),
        (affinity(expression("disk", "Exists")), True),
        (affinity(expression("gpu", "Exists")), False),
        (affinity(expression("gpu", "DoesNotExist")), True),
        (affinity(expression("cores", "Gt", "3")), True),
        (affinity(expression("cores", "Gt", "4")), False),
        (affinity(expression("cores", "Lt", "5")), True),
        (affinity(expression("disk", "Gt", "1")), False),
        (affinity(expression("gpu", "Exists"), expression("disk", "Exists")), True),
        (affinity({}), False),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}), True),
        (affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}), False),
        ({"nodeSelector": {"disk": "hdd"}} | affinity(expression("disk", "Exists")), False),
    ],
)
def test_node_affinity(spec, fits):
    found = verdict(NodeAffinity(), pod(**spec), cluster(node_item("n1", labels={"disk": "ssd", "cores": "4"})))
    assert reasons(found) == (() if fits else ("node(s) didn't match Pod's node affinity/selector",))


def test_preferred_nodes():
    entries = [{"weight": 10, "preference": expression("disk", "In", "ssd")}, {"weight": 30, "preference": expression("gpu", "Exists")}]
    wanting = pod(**affinity(preferredDuringSchedulingIgnoredDuringExecution=entries))
    world = cluster(node_item("a", labels={"disk": "ssd"}), node_item("b", labels={"disk": "ssd", "gpu": "1"}), node_item("c"))
    assert scores(NodeAffinity(), wanting, world) == {"a": 25, "b": 100, "c": 0}
    assert scores(NodeAffinity(), pod(), world) == {}


@pytest.mark.parametrize(
    ("names", "expected"),
    [([["a"]], {"a"}), ([["a"], ["b"]], {"a", "b"}), ([["a"], None], None), ([], None)],
)
def test_terms_that_name_nodes_narrow_the_choice(names, expected):
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": n}]} if n else expression("x", "Exists") for n in names]
    found = NodeAffinity().candidates(pod(**(affinity(*terms) if terms else {})))
    assert (found is None) if expected is None else found == expected


@pytest.mark.parametrize(
    ("wanted", "taken", "fits"),
    [
        ([], [{"hostPort": 80}], True),
        ([{"hostPort": 80}], [], True),
        ([{"hostPort": 80}], [{"hostPort": 80}], False),
        ([{"hostPort": 80}], [{"hostPort": 81}], True),
        ([{"hostPort": 80, "protocol": "UDP"}], [{"hostPort": 80}], True),
        ([{"hostPort": 80, "hostIP": "127.0.0.1"}], [{"hostPort": 80, "hostIP": "127.0.0.2"}], True),
        ([{"hostPort": 80, "hostIP": "127.0.0.1"}], [{"hostPort": 80}], False),
        ([{"hostPort": 80}], [{"hostPort": 80, "hostIP": "127.0.0.1"}], False),
    ],
)
def test_host_ports(wanted, taken, fits):
    found = verdict(NodePorts(), pod(ports=wanted), cluster(node_item("n1"), pods=[("n1", pod(ports=taken))]))
    assert reasons(found) == (() if fits else ("node(s) didn't have free ports for the requested pod ports",))


@pytest.mark.parametrize(
    ("wanted", "there", "expected", "resolvable"),
    [
        ({}, {"cpu": "4", "memory": "8Gi"}, (), True),
        ({"cpu": "1"}, {"cpu": "3"}, (), True),
        ({"cpu": "1001m"}, {"cpu": "3"}, ("Insufficient cpu",), True),
        ({"cpu": "5"}, {}, ("Insufficient cpu",), False),
        ({"memory": "1Gi"}, {"memory": "7.5Gi"}, ("Insufficient memory",), True),
        ({"cpu": "2", "memory": "1Gi"}, {"cpu": "3", "memory": "8Gi"}, ("Insufficient cpu", "Insufficient memory"), True),
    ],
)
def test_room(wanted, there, expected, resolvable):
    found = verdict(NodeResourcesFit(), pod(**wanted), cluster(node_item("n1"), pods=[("n1", pod(**there))]))
    assert reasons(found) == expected
    assert found is None or found.resolvable is resolvable


def test_extended_resources_and_too_many_pods():
    wanting = pod()
    container = {"name": "c", "image": "x", "resources": {"requests": {"example.com/gpu": "2", "ephemeral-storage": "1Gi"}}}
    wanting = pod(containers=[container])
    world = cluster(node_item("n1", pods="0", **{"example.com/gpu": "1"}))
    found = verdict(NodeResourcesFit(), wanting, world)
    assert found.reasons == ("Too many pods", "Insufficient ephemeral-storage", "Insufficient example.com/gpu")
    assert not found.resolvable


def test_init_containers_count_as_upstream_counts_them():
    init = [{"name": "i", "image": "x", "resources": {"requests": {"cpu": "3"}}}]
    assert pod(cpu="1", initContainers=init).requests["cpu"] == 3000
    assert pod(cpu="1", initContainers=[init[0] | {"restartPolicy": "Always"}]).requests["cpu"] == 4000


def test_emptier_nodes_are_better():
    world = cluster(node_item("a"), node_item("b"), pods=[("a", pod(cpu="2", memory="4Gi"))])
    assert scores(NodeResourcesFit(), pod(cpu="1", memory="2Gi"), world) == {"a": 25, "b": 75}


def test_pods_without_requests_count_as_small_ones():
    assert pod().usual == (100, 200 * 1024 * 1024)
    assert pod(cpu="1").usual == (1000, 200 * 1024 * 1024)
    assert pod(cpu="1", memory="1Mi").usual == (1000, 1024 * 1024)


def test_balance():
    world = cluster(node_item("a", cpu="4", memory="4Gi"), node_item("b", cpu="4", memory="8Gi"))
    assert scores(NodeResourcesBalancedAllocation(), pod(cpu="2", memory="2Gi"), world) == {"a": 100, "b": 87}
    assert scores(NodeResourcesBalancedAllocation(), pod(), world) == {}


def test_nodes_that_have_the_image():
    size = 500 * 1024 * 1024
    world = cluster(node_item("a", images={"app:latest": size}), node_item("b"))
    found = scores(ImageLocality(), pod(images=("app",)), world)
    assert found["a"] > 0
    assert found["b"] == 0
