"""Environment variables: sources, order, expansion, and the words of refusals."""

import base64

import pytest

from edgekube.kubelet.env import EnvSources, environment, expand, service_variables
from edgekube.kubelet.security import ConfigRefused
from tests.unit.kubelet.kit import pod, spec

MAPS = {("default", "cm"): {"data": {"a": "1", "b": "2", "bad=key": "x"}}}
SECRETS = {("default", "s"): {"data": {"a": base64.b64encode(b"secret").decode()}}}


def sources(services=()):
    return EnvSources(
        config_map=lambda key: MAPS.get(tuple(key)), secret=lambda key: SECRETS.get(tuple(key)), services=services,
        pod_ips=("10.42.0.3",), host_ips=("192.0.2.1",), node_name="n1", allocatable={"cpu": "4", "memory": "8Gi"},
    )  # fmt: skip


def env_of(container, services=(), **fields):
    return dict(environment(pod(container, **fields), container, sources(services)))


@pytest.mark.parametrize(("text", "expected"), [
    ("$(A)", "1"), ("x$(A)y", "x1y"), ("$$(A)", "$(A)"), ("$(NOPE)", "$(NOPE)"), ("$A", "$A"), ("$(A", "$(A"), ("$$$(A)", "$1"), ("a$", "a$"), ("$$", "$"),
])  # fmt: skip
def test_expansion(text, expected):
    assert expand(text, {"A": "1"}.get) == expected


def entry(name, **source):
    return {"name": name, "valueFrom": source}


@pytest.mark.parametrize(("one", "value"), [
    ({"name": "X", "value": "v"}, "v"),
    ({"name": "X"}, ""),
    (entry("X", fieldRef={"fieldPath": "metadata.name"}), "web"),
    (entry("X", fieldRef={"fieldPath": "metadata.labels['app']"}), "shop"),
    (entry("X", fieldRef={"fieldPath": "metadata.annotations['none']"}), ""),
    (entry("X", fieldRef={"fieldPath": "status.podIP"}), "10.42.0.3"),
    (entry("X", fieldRef={"fieldPath": "status.hostIP"}), "192.0.2.1"),
    (entry("X", fieldRef={"fieldPath": "spec.nodeName"}), "n1"),
    (entry("X", resourceFieldRef={"resource": "limits.cpu"}), "1"),
    (entry("X", resourceFieldRef={"resource": "limits.cpu", "divisor": "1m"}), "500"),
    (entry("X", resourceFieldRef={"resource": "requests.memory", "divisor": "1Mi"}), "64"),
    (entry("X", resourceFieldRef={"resource": "limits.memory", "divisor": "1Gi"}), "8"),
    (entry("X", configMapKeyRef={"name": "cm", "key": "a"}), "1"),
    (entry("X", secretKeyRef={"name": "s", "key": "a"}), "secret"),
    (entry("X", configMapKeyRef={"name": "none", "key": "a", "optional": True}), None),
    (entry("X", secretKeyRef={"name": "s", "key": "none", "optional": True}), None),
])  # fmt: skip
def test_values(one, value):
    own = spec(env=[one], resources={"limits": {"cpu": "500m"}, "requests": {"memory": "64Mi"}})
    assert env_of(own, labels={"app": "shop"}).get("X") == value


@pytest.mark.parametrize(("one", "message"), [
    (entry("X", configMapKeyRef={"name": "none", "key": "a"}), 'configmap "none" not found'),
    (entry("X", configMapKeyRef={"name": "cm", "key": "z"}), "couldn't find key z in ConfigMap default/cm"),
    (entry("X", secretKeyRef={"name": "none", "key": "a"}), 'secret "none" not found'),
    (entry("X", secretKeyRef={"name": "s", "key": "z"}), "couldn't find key z in Secret default/s"),
])  # fmt: skip
def test_refusals(one, message):
    with pytest.raises(ConfigRefused, match="^" + message.replace("(", "\\(")):
        env_of(spec(env=[one]))


def test_order_and_precedence():
    own = spec(
        envFrom=[{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}, "prefix": "P_"}],
        env=[{"name": "b", "value": "own"}, {"name": "c", "value": "$(a)-$(b)-$(S)-$(later)"}, {"name": "later", "value": "x"}],
    )
    found = env_of(own, services=(("S", "svc"), ("a", "service")))
    assert found == {"S": "svc", "a": "1", "b": "own", "P_a": "secret", "c": "1-own-svc-$(later)", "later": "x"}


def service(name, namespace="default", ip="10.43.0.9", ports=((80, "http", "TCP"),)):
    listed = [{"port": port, "name": label, "protocol": protocol} for port, label, protocol in ports]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": listed}}


def test_service_variables():
    services = [
        service("kubernetes", ip="10.43.0.1"),
        service("my-db", "shop"),
        service("other", "else"),
        service("headless", "shop", "None"),
    ]
    found = dict(service_variables("shop", services, links=True))
    assert found["KUBERNETES_SERVICE_HOST"] == "10.43.0.1"
    assert found["MY_DB_SERVICE_HOST"] == "10.43.0.9"
    assert found["MY_DB_SERVICE_PORT"] == found["MY_DB_SERVICE_PORT_HTTP"] == "80"
    assert found["MY_DB_PORT"] == found["MY_DB_PORT_80_TCP"] == "tcp://10.43.0.9:80"
    assert found["MY_DB_PORT_80_TCP_ADDR"] == "10.43.0.9"
    assert not [name for name in found if name.startswith(("OTHER", "HEADLESS"))]
    assert {name.split("_")[0] for name, _ in service_variables("shop", services, links=False)} == {"KUBERNETES"}
