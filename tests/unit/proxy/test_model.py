"""Services and slices to fronts and targets, as a table."""

import pytest

from edgekube.proxy.model import Endpoint, Front, Target, plan_host_ports, plan_service, stale_udp


def service(**spec):
    base = {"clusterIP": "10.43.0.5", "type": "ClusterIP", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}
    return {"metadata": {"name": "web", "namespace": "default"}, "spec": base | spec, "status": {}}


def endpoint(address, *, node="pi", ready=True, serving=True, terminating=False):
    return {"addresses": [address], "nodeName": node, "conditions": {"ready": ready, "serving": serving, "terminating": terminating}}


def slice_of(*endpoints, name="http", port=8080, protocol="TCP"):
    return {"addressType": "IPv4", "ports": [{"name": name, "port": port, "protocol": protocol}], "endpoints": list(endpoints)}


HERE, THERE = endpoint("10.42.0.7"), endpoint("10.42.1.7", node="other")
CLUSTER = Front("10.43.0.5", "tcp", 80)
PORT = Front("", "tcp", 30080)
ONE, TWO = Endpoint("10.42.0.7", 8080), Endpoint("10.42.1.7", 8080)
WITH_PORT = {"type": "NodePort", "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}


@pytest.mark.parametrize(
    ("spec", "slices", "expected"),
    [
        ({}, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE, TWO))}),
        ({}, [slice_of(HERE), slice_of(THERE), slice_of(HERE)], {CLUSTER: Target((ONE, TWO))}),
        ({}, [], {}),
        ({}, [slice_of(HERE, name="other")], {}),
        ({}, [slice_of(endpoint("10.42.0.7", ready=False, serving=False))], {}),
        ({}, [slice_of(endpoint("10.42.0.7", ready=False, terminating=True))], {CLUSTER: Target((ONE,))}),
        ({}, [slice_of(endpoint("10.42.0.7", ready=False, terminating=True), THERE)], {CLUSTER: Target((TWO,))}),
        ({"internalTrafficPolicy": "Local"}, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE,))}),
        ({"clusterIP": "None"}, [slice_of(HERE)], {}),
        ({"type": "ExternalName", "clusterIP": ""}, [slice_of(HERE)], {}),
        (WITH_PORT, [slice_of(HERE, THERE)], {CLUSTER: Target((ONE, TWO)), PORT: Target((ONE, TWO), masquerade=True)}),
        (
            WITH_PORT | {"externalTrafficPolicy": "Local"},
            [slice_of(HERE, THERE)],
            {CLUSTER: Target((ONE, TWO)), PORT: Target((ONE,))},
        ),
        (WITH_PORT | {"externalTrafficPolicy": "Local"}, [slice_of(THERE)], {CLUSTER: Target((TWO,))}),
        (
            {"externalIPs": ["192.0.2.9"]},
            [slice_of(HERE)],
            {CLUSTER: Target((ONE,)), Front("192.0.2.9", "tcp", 80): Target((ONE,), masquerade=True)},
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
    assert plan_service(service(**spec), slices, "pi") == expected


def test_host_ports_of_pods():
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"}, {"containerPort": 9}]
    pod = {"spec": {"containers": [{"name": "a", "ports": ports}]}, "status": {"podIP": "10.42.0.7", "phase": "Running"}}
    assert plan_host_ports(pod) == {
        Front("", "tcp", 8080): Target((Endpoint("10.42.0.7", 80),)),
        Front("192.0.2.1", "udp", 53): Target((Endpoint("10.42.0.7", 53),)),
    }
    assert plan_host_ports({**pod, "status": {}}) == {}
    assert plan_host_ports({**pod, "status": {"podIP": "10.42.0.7", "phase": "Succeeded"}}) == {}
    assert plan_host_ports({**pod, "spec": {**pod["spec"], "hostNetwork": True}}) == {}


def test_udp_flows_to_lost_endpoints_are_stale_and_so_is_the_void():
    dns = Front("10.43.0.5", "udp", 53)
    one, both = {dns: Target((ONE,))}, {dns: Target((ONE, TWO))}
    assert stale_udp(both, one) == {(dns, TWO)}
    assert stale_udp(one, {}) == {(dns, ONE)}
    assert stale_udp({}, one) == {(dns, Endpoint("", 0))}
    assert stale_udp(one, one) == set()
    assert stale_udp({CLUSTER: Target((ONE,))}, {}) == set()
