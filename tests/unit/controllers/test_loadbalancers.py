"""Which node carries which Service, as tables."""

import pytest

from edgekube.api.types import Key
from edgekube.controllers.loadbalancers import CONFLICT, Balancer, Carrier, Distribution, Outcome, balancer_of, carrier_of, plan_status

HTTP, HTTPS = ("TCP", 80), ("TCP", 443)


def balancer(name, age, *ports, **options):
    return Balancer(Key("default", name), f"2026-01-{age:02}", ports or (HTTP,), **options)


def carriers(*names, **options):
    return [Carrier(name, (f"192.0.2.{number}",), **options) for number, name in enumerate(names, 1)]


def outcome_of(name, balancers, nodes, *, here=None, holders=None):
    def rivals(port):
        return [found for found in balancers if port in found.ports]

    distribution = Distribution(
        carriers=nodes,
        here=lambda key: frozenset((here or {}).get(key.name, ())),
        rivals=rivals,
        holder=lambda node, port, _asking: (holders or {}).get((node, port), ""),
    )
    return distribution.outcome(next(found for found in balancers if found.key.name == name))


def test_the_older_keeps_the_port_and_the_younger_is_told():
    both = [balancer("young", 2), balancer("old", 1)]
    assert outcome_of("old", both, carriers("a", "b")) == Outcome(("192.0.2.1", "192.0.2.2"))
    why = "port 80/TCP is taken by the older Service default/old on node a (and on 1 other nodes)"
    assert outcome_of("young", both, carriers("a", "b")) == Outcome((), why)
    assert outcome_of("young", both[:1], carriers("a")) == Outcome(("192.0.2.1",))


def test_another_protocol_is_another_port():
    both = [balancer("young", 2, ("UDP", 80)), balancer("old", 1)]
    assert outcome_of("young", both, carriers("a")) == Outcome(("192.0.2.1",))


def test_who_is_not_carried_blocks_nobody():
    """The second wants 80 and 443, has not got 80: the third gets 443."""
    three = [balancer("first", 1, HTTP), balancer("second", 2, HTTP, HTTPS), balancer("third", 3, HTTPS)]
    assert outcome_of("second", three, carriers("a")).addresses == ()
    assert outcome_of("third", three, carriers("a")) == Outcome(("192.0.2.1",))


def test_local_services_are_where_their_endpoints_are_and_leave_the_rest_to_others():
    both = [balancer("young", 2), balancer("old", 1, local=True)]
    nodes = carriers("a", "b")
    assert outcome_of("old", both, nodes, here={"old": ["b"]}) == Outcome(("192.0.2.2",))
    found = outcome_of("young", both, nodes, here={"old": ["b"]})
    assert found == Outcome(("192.0.2.1",), "port 80/TCP is taken by the older Service default/old on node b")
    assert outcome_of("old", both, nodes) == Outcome()


@pytest.mark.parametrize(
    ("node", "holders", "holder"),
    [
        ({"listens": {HTTP: "the API server"}}, {}, "the API server"),
        ({}, {("a", HTTP): "pod default/web (its hostPort)"}, "pod default/web (its hostPort)"),
        ({}, {("b", HTTP): "somebody"}, ""),
        ({"listens": {HTTPS: "the API server"}}, {}, ""),
    ],
)
def test_ports_that_the_node_itself_uses(node, holders, holder):
    found = outcome_of("web", [balancer("web", 1)], carriers("a", **node), holders=holders)
    assert found == (Outcome((), f"port 80/TCP is taken by {holder} on node a") if holder else Outcome(("192.0.2.1",)))


def test_labels_select_nodes_and_pools():
    a, b, c = carriers("a", "b", "c")
    enabled = Carrier(b.name, b.addresses, enabled=True)
    assert outcome_of("web", [balancer("web", 1)], [a, enabled, c]).addresses == ("192.0.2.2",)
    pooled = Carrier(c.name, c.addresses, pool="fast")
    assert outcome_of("web", [balancer("web", 1)], [a, b, pooled]).addresses == ("192.0.2.1", "192.0.2.2")
    assert outcome_of("web", [balancer("web", 1, pool="fast")], [a, b, pooled]).addresses == ("192.0.2.3",)
    down = Carrier(a.name, a.addresses, ready=False)
    assert outcome_of("web", [balancer("web", 1)], [down, b]).addresses == ("192.0.2.2",)
    assert outcome_of("web", [balancer("web", 1, address="192.0.2.2")], [a, b]).addresses == ("192.0.2.2",)


def test_families_choose_addresses():
    node = Carrier("a", ("192.0.2.1", "2001:db8::1"))
    assert outcome_of("web", [balancer("web", 1)], [node]).addresses == ("192.0.2.1",)
    assert outcome_of("web", [balancer("web", 1, families=("IPv6", "IPv4"))], [node]).addresses == ("192.0.2.1", "2001:db8::1")


def service(conditions=(), ingress=(), **spec):
    spec = {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]} | spec
    status = {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in ingress]}, "conditions": list(conditions)}
    return {"metadata": {"name": "web", "namespace": "default", "creationTimestamp": "2026-01-01"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("spec", "ours"),
    [
        ({}, True),
        ({"loadBalancerClass": "edgekube.io/node-lb"}, True),
        ({"loadBalancerClass": "acme.example/lb"}, False),
        ({"type": "NodePort"}, False),
    ],
)
def test_which_services_are_ours(spec, ours):
    assert (balancer_of(service(**spec)) is not None) is ours


def test_external_addresses_are_shown_before_internal_ones():
    addresses = [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "203.0.113.1"}]
    status = {"addresses": addresses, "conditions": [{"type": "Ready", "status": "True"}]}
    status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": 10250}}
    carrier = carrier_of({"metadata": {"name": "a"}, "status": status})
    assert carrier == Carrier("a", ("203.0.113.1",), listens={("TCP", 10250): "the node's kubelet"})
    status["addresses"] = addresses[:1]
    assert carrier_of({"metadata": {"name": "a"}, "status": status}).addresses == ("10.0.0.1",)


def test_status_is_written_when_it_says_something_new():
    assert plan_status(service(), Outcome(), "now") is None
    ingress = [{"ip": "192.0.2.1", "ipMode": "VIP"}]
    assert plan_status(service(), Outcome(("192.0.2.1",)), "now") == {"loadBalancer": {"ingress": ingress}, "conditions": None}
    assert plan_status(service(ingress=["192.0.2.1"]), Outcome(("192.0.2.1",)), "now") is None
    conflict = plan_status(service(ingress=["192.0.2.1"]), Outcome((), "port 80 is taken"), "now")
    assert conflict["loadBalancer"] == {"ingress": None}
    (condition,) = conflict["conditions"]
    assert (condition["type"], condition["status"]) == (CONFLICT, "True")
    assert condition["message"] == "port 80 is taken, so this Service has no address there"
    told = service(conditions=[condition, {"type": "Other", "status": "True"}])
    assert plan_status(told, Outcome((), "port 80 is taken"), "later") is None
    freed = plan_status(told, Outcome(("192.0.2.1",)), "later")
    assert freed == {"loadBalancer": {"ingress": ingress}, "conditions": [{"type": "Other", "status": "True"}]}
    assert plan_status(told, None, "later") == {"loadBalancer": {"ingress": None}, "conditions": [{"type": "Other", "status": "True"}]}
