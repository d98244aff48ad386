"""Services and slices to fronts and targets, as a table."""

import pytest

from edgekube.proxy.choice import Place
from edgekube.proxy.model import ANY4, ANY6, Endpoint, Front, Target, changes, stale_udp
from edgekube.proxy.services import Health, plan_host_ports, plan_service

PLACE = Place("pi", "here", ("192.0.2.7",))


def service(*, labels=None, annotations=None, ingress=(), **spec):
    base = {"clusterIP": "10.43.0.5", "type": "ClusterIP", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}
    metadata = {"name": "web", "namespace": "default", "labels": labels or {}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": base | spec, "status": {"loadBalancer": {"ingress": list(ingress)}}}


def endpoint(address, *, node="pi", ready=True, serving=True, terminating=False, zones=(), nodes=()):
    found = {"addresses": [address], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}
    hints = {"forZones": [{"name": zone} for zone in zones], "forNodes": [{"name": name} for name in nodes]}
    return found | {"hints": {key: value for key, value in hints.items() if value}}


def slice_of(*endpoints, name="http", port=8080, protocol="TCP", family="IPv4"):
    return {"addressType": family, "ports": [{"name": name, "port": port, "protocol": protocol}], "endpoints": list(endpoints)}


HERE, THERE = endpoint("10.42.0.7"), endpoint("10.42.1.7", node="other")
ENDING_HERE = endpoint("10.42.0.8", ready=False, terminating=True)
ENDING_THERE = endpoint("10.42.1.8", node="other", ready=False, terminating=True)
CLUSTER = Front("10.43.0.5", "tcp", 80)
PORT = Front(ANY4, "tcp", 30080)
OUTSIDE = Front("192.0.2.9", "tcp", 80)
ONE, TWO = Endpoint("10.42.0.7", 8080, True), Endpoint("10.42.1.7", 8080)
LAST_ONE, LAST_TWO = Endpoint("10.42.0.8", 8080, True), Endpoint("10.42.1.8", 8080)
WITH_PORT = {"type": "NodePort", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}
LOCAL = WITH_PORT | {"externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("spec", "slices", "expected"),
    [
        ({}, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE, TWO))}),
        ({}, [slice_of(HERE), slice_of(THERE), slice_of(HERE)], {CLUSTER: Target((ONE, TWO))}),
        ({}, [], {CLUSTER: Target()}),
        ({}, [slice_of(HERE, name="other")], {CLUSTER: Target()}),
        ({}, [slice_of(endpoint("10.42.0.7", ready=False, serving=False))], {CLUSTER: Target()}),
        ({}, [slice_of(endpoint("10.42.0.7", node=None))], {CLUSTER: Target((Endpoint("10.42.0.7", 8080),))}),
        ({}, [slice_of(ENDING_HERE)], {CLUSTER: Target((LAST_ONE,))}),
        ({}, [slice_of(ENDING_HERE, THERE)], {CLUSTER: Target((TWO,))}),
        ({"internalTrafficPolicy": "Local"}, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE,))}),
        ({"internalTrafficPolicy": "Local"}, [slice_of(THERE)], {CLUSTER: Target(drop=True)}),
        ({"internalTrafficPolicy": "Local"}, [], {CLUSTER: Target()}),
        ({"internalTrafficPolicy": "Local"}, [slice_of(THERE, ENDING_HERE)], {CLUSTER: Target((LAST_ONE,))}),
        ({"clusterIP": "None"}, [slice_of(HERE)], {}),
        ({"type": "ExternalName", "clusterIP": ""}, [slice_of(HERE)], {}),
        (WITH_PORT, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE, TWO)), PORT: Target((ONE, TWO), masquerade=True)}),
        (LOCAL, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE, TWO)), PORT: Target((ONE,), inside=(ONE, TWO))}),
        (LOCAL, [slice_of(THERE)], {CLUSTER: Target((TWO,)), PORT: Target((), inside=(TWO,), drop=True)}),
        (LOCAL, [slice_of(THERE, ENDING_HERE)], {CLUSTER: Target((TWO,)), PORT: Target((LAST_ONE,), inside=(TWO,))}),
        (LOCAL, [slice_of(ENDING_THERE)], {CLUSTER: Target((LAST_TWO,)), PORT: Target((), inside=(LAST_TWO,), drop=True)}),
        (LOCAL, [], {CLUSTER: Target(), PORT: Target()}),
        (
            {"externalIPs": ["192.0.2.9", "2001:db8::9"]},
            [slice_of(HERE)],
            {CLUSTER: Target((ONE,)), OUTSIDE: Target((ONE,), masquerade=True)},
        ),
        ({"sessionAffinity": "ClientIP"}, [slice_of(HERE)], {CLUSTER: Target((ONE,), affinity_seconds=10800)}),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
            [slice_of(HERE)],
            {CLUSTER: Target((ONE,), affinity_seconds=5)},
        ),
        (
            {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns", "port": 53, "protocol": "TCP"}]},
            [slice_of(HERE, name="dns", protocol="UDP"), slice_of(THERE, name="dns")],
            {Front("10.43.0.5", "udp", 53): Target((ONE,)), Front("10.43.0.5", "tcp", 53): Target((TWO,))},
        ),
        ({"ports": [{"name": "s", "port": 1, "protocol": "SCTP"}]}, [slice_of(HERE, name="s", protocol="SCTP")], {}),
    ],
)
def test_plan(spec, slices, expected):
    assert plan_service(service(**spec), slices, PLACE).targets == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [("service.kubernetes.io/service-proxy-name", {}), ("service.kubernetes.io/headless", {}), ("app", {CLUSTER: Target((ONE,))})],
)
def test_services_of_other_proxies_are_left_alone(label, expected):
    assert plan_service(service(labels={label: ""}), [slice_of(HERE)], PLACE).targets == expected


def hinted(address, node, *, zones=(), nodes=(), ready=True):
    return endpoint(address, node=node, zones=zones, nodes=nodes, ready=ready)


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([hinted("a", "pi", zones=["here"]), hinted("b", "x", zones=["there"])], "a"),
        ([hinted("a", "x", zones=["here", "there"]), hinted("b", "x", zones=["there", "here"])], "ab"),
        ([hinted("a", "pi", zones=["here"]), hinted("b", "x")], "ab"),  # one without hints: none count
        ([hinted("a", "x", zones=["there"]), hinted("b", "x", zones=["there"])], "ab"),  # none for this zone
        ([hinted("a", "x", zones=["here"]), hinted("b", "pi", zones=["here"], nodes=["pi"])], "ab"),
        ([hinted("a", "x", zones=["here"], nodes=["x"]), hinted("b", "pi", zones=["here"], nodes=["pi"])], "b"),
        ([hinted("a", "x", zones=["here"], nodes=["x"]), hinted("b", "y", zones=["there"], nodes=["y"])], "a"),  # node, then zone
        ([hinted("a", "pi", zones=["here"]), hinted("b", "x", ready=False)], "a"),  # only ready ones need hints
    ],
)
def test_hints_choose_the_near_when_all_have_them(endpoints, expected):
    (target,) = plan_service(service(), [slice_of(*endpoints)], PLACE).targets.values()
    assert "".join(found.address for found in target.endpoints) == expected


def test_load_balancer_addresses_restricted_to_their_clients():
    ingress = ({"ip": "192.0.2.9", "ipMode": "VIP"}, {"ip": "192.0.2.10", "ipMode": "Proxy"}, {"hostname": "lb"})
    ranges = ["198.51.100.0/24", " 203.0.113.7/32", "2001:db8::/32"]
    spec = {"type": "LoadBalancer", "loadBalancerClass": "acme.example/lb", "loadBalancerSourceRanges": ranges}
    plan = plan_service(service(ingress=ingress, **spec), [slice_of(HERE)], PLACE).targets
    limited = Target((ONE,), masquerade=True, sources=("198.51.100.0/24", "203.0.113.7/32"))
    assert plan == {CLUSTER: Target((ONE,)), OUTSIDE: limited}
    spec["loadBalancerSourceRanges"] = ["0.0.0.0/0"]
    assert plan_service(service(ingress=ingress, **spec), [slice_of(HERE)], PLACE).targets[OUTSIDE].sources == ()


@pytest.mark.parametrize(
    ("ingress", "class_", "carried"), [("203.0.113.1", None, True), ("203.0.113.1", "a/b", False), ("203.0.113.2", None, False)]
)
def test_a_node_behind_nat_answers_on_its_inner_address_too(ingress, class_, carried):
    place = Place("pi", "", ("192.0.2.7", "203.0.113.1"))
    found = service(type="LoadBalancer", loadBalancerClass=class_, ingress=[{"ip": ingress}])
    assert (Front("192.0.2.7", "tcp", 80) in plan_service(found, [slice_of(HERE)], place).targets) is carried


def test_annotated_ranges_count_for_our_own_balancers():
    annotations = {"service.beta.kubernetes.io/load-balancer-source-ranges": "198.51.100.0/24, 203.0.113.0/24"}
    found = service(type="LoadBalancer", ingress=[{"ip": "192.0.2.9"}], annotations=annotations)
    assert plan_service(found, [slice_of(HERE)], PLACE).targets[OUTSIDE].sources == ("198.51.100.0/24", "203.0.113.0/24")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}, Health(31000, 1)),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31000}, None),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, None),
    ],
)
def test_health_counts_ready_addresses_here(spec, expected):
    assert plan_service(service(**spec), [slice_of(HERE, THERE, ENDING_HERE)], PLACE).health == expected


def test_both_families_have_their_own_fronts_and_endpoints():
    spec = WITH_PORT | {"clusterIPs": ["10.43.0.5", "fd43::5"]}
    six = slice_of(endpoint("fd42::7"), family="IPv6")
    one6 = Endpoint("fd42::7", 8080, True)
    assert plan_service(service(**spec), [slice_of(HERE), six], PLACE).targets == {
        CLUSTER: Target((ONE,)),
        PORT: Target((ONE,), masquerade=True),
        Front("fd43::5", "tcp", 80): Target((one6,)),
        Front(ANY6, "tcp", 30080): Target((one6,), masquerade=True),
    }


def test_host_ports_of_pods():
    ports = [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"containerPort": 9},
    ]
    pod = {"spec": {"containers": [{"name": "a", "ports": ports}]}, "status": {"podIP": "10.42.0.7", "phase": "Running"}}
    only = {
        Front(ANY4, "tcp", 8080): Target((Endpoint("10.42.0.7", 80, True),)),
        Front("192.0.2.1", "udp", 53): Target((Endpoint("10.42.0.7", 53, True),)),
    }
    assert plan_host_ports(pod).targets == only
    both = {**pod, "status": {"podIP": "10.42.0.7", "podIPs": [{"ip": "10.42.0.7"}, {"ip": "fd42::7"}]}}
    assert plan_host_ports(both).targets == only | {Front(ANY6, "tcp", 8080): Target((Endpoint("fd42::7", 80, True),))}
    assert plan_host_ports({**pod, "status": {}}).targets == {}
    assert plan_host_ports({**pod, "status": {"podIP": "10.42.0.7", "phase": "Succeeded"}}).targets == {}
    assert plan_host_ports({**pod, "spec": {**pod["spec"], "hostNetwork": True}}).targets == {}


def test_udp_fronts_with_stale_flows_say_what_is_still_right():
    dns = Front("10.43.0.5", "udp", 53)
    one, both = {dns: Target((ONE,))}, {dns: Target((ONE, TWO))}
    assert stale_udp(both, one) == {dns: {ONE}}
    assert stale_udp(one, {}) == {dns: frozenset()}
    assert stale_udp({}, one) == {dns: {ONE}}
    assert stale_udp(one, both) == {}
    assert stale_udp(one, one) == {}
    assert stale_udp({CLUSTER: Target((ONE,))}, {}) == {}


def test_changes_name_only_what_differs():
    old, new = {CLUSTER: Target((ONE,)), PORT: Target((ONE,))}, {CLUSTER: Target((ONE,)), PORT: Target((TWO,)), OUTSIDE: Target()}
    assert changes(old, new) == ({PORT: Target((ONE,))}, {PORT: Target((TWO,)), OUTSIDE: Target()})
