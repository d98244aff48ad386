"""NetworkPolicy with real pods and the real kubectl: a three-tier application that only talks as it should."""

import json
import signal

import pytest

from tests.e2e.manifests import pod
from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

SERVE = "while true; do nc -l -p 8080 -e hostname; done"
TIERS = ("front", "back", "data")
POLICIES = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: dns}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: back}
spec:
  podSelector: {matchLabels: {app: back}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: http}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: data}}}], ports: [{port: 8080, endPort: 8090}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: front}
spec:
  podSelector: {matchLabels: {app: front}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.42.0.0/16]}}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: back}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: data}
spec:
  podSelector: {matchLabels: {app: data}}
  ingress: [{from: [{podSelector: {matchLabels: {app: back}}}]}]
"""
ALLOWED = {("front", "front"), ("front", "back"), ("back", "back"), ("back", "data"), ("data", "data")}  # to oneself, through the Service


def service(name):
    return f"\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"


def tier(name):
    extra = "ports: [{name: http, containerPort: 8080}]\n    readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1}"
    return pod(name, SERVE, container=extra) + service(name)


def asks(space, source, target):
    """Whether a Service answers, by its name: so DNS must be allowed too."""
    return space.kubectl("exec", source, "--", "sh", "-c", f"nc -w 1 {target}.{space.name} 80 2>/dev/null || true").strip() == target


@pytest.fixture(scope="module")
def tiers(shared):
    from tests.e2e.conftest import Space

    shared.kubectl("create", "namespace", "t-tiers")
    space = Space(shared, "t-tiers")
    for name in TIERS:
        space.apply(tier(name))
    space.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    yield space
    shared.kubectl("delete", "namespace", "t-tiers", "--wait=false")


EVERYTHING = {(source, target) for source in TIERS for target in TIERS}


def talk(space, allowed):
    """Those that may get their answer (the servers take one caller at a time), the others none."""
    for source, target in allowed:
        wait_until(lambda source=source, target=target: asks(space, source, target), seconds=10, what=f"{source} reaches {target}")
    assert [pair for pair in EVERYTHING - allowed if asks(space, *pair)] == []


def test_three_tiers_talk_as_they_should(tiers):
    talk(tiers, EVERYTHING)
    tiers.apply(POLICIES)
    wait_until(lambda: not asks(tiers, "data", "front"), seconds=10)
    talk(tiers, ALLOWED)
    assert "default-deny" in tiers.kubectl("get", "netpol")
    assert "Allowing ingress traffic" in tiers.kubectl("describe", "networkpolicy", "back")
    # probes come from the node: isolated pods stay ready; a new pod is isolated from its first packet, and admitted as a peer at once
    states = {p["metadata"]["name"]: {c["type"]: c["status"] for c in p["status"]["conditions"]}["Ready"] for p in tiers.get("pods")["items"]}
    assert states == dict.fromkeys(TIERS, "True")
    tiers.apply(pod("early", "nc -w 1 front 80 && echo leaked; nc -w 1 data 80 && echo leaked; echo over; sleep 3600"))
    wait_until(lambda: "over" in tiers.kubectl("logs", "early") if tiers.get("pod", "early")["status"].get("phase") == "Running" else False)
    assert "leaked" not in tiers.kubectl("logs", "early")
    tiers.kubectl("label", "pod", "early", "app=back", "--overwrite")
    wait_until(lambda: asks(tiers, "early", "data"), seconds=5)
    tiers.kubectl("delete", "networkpolicy", "--all")
    talk(tiers, EVERYTHING)
    assert tiers.get("policyslices.networking.edgekube.io")["items"] == []


def test_words_of_kubectl(space):
    bad = '{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}}'
    message = space.fails("apply", "-f", "-", stdin=bad)
    assert 'The NetworkPolicy "p" is invalid: spec.ingress[0].from[0]: Required value: must specify a peer' in message
    assert "podSelector" in space.kubectl("explain", "networkpolicy.spec")
    assert "policyslice" not in space.kubectl("get", "all", "-o", "name")
    sctp = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "sctp"}}
    space.apply(json.dumps(sctp | {"spec": {"podSelector": {}, "ingress": [{"ports": [{"protocol": "SCTP", "port": 7777}]}]}}))
    assert space.get("netpol", "sctp")["spec"]["policyTypes"] == ["Ingress"]


def test_rules_outlive_kill_9_and_go_with_the_installation(image):
    with cluster() as mine:
        mine.edgekube("images", "import", str(image))
        mine.apply(tier("data"))
        mine.apply("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}")
        mine.kubectl("wait", "--for=condition=Ready", "pod/data", "--timeout=60s")

        def rules():
            return [line for line in mine.inside("nft", "list", "ruleset").splitlines() if "_policy" in line or "jump in4_" in line]

        wait_until(lambda: any("jump in4_" in line for line in rules()))
        before = rules()
        mine.kill(signal.SIGKILL)
        assert rules() == before
        mine.start()
        assert rules() == before
        wait_until(lambda: mine.get("policyslices", "-A")["items"][0:1])
        assert rules() == before
        mine.uninstall()
        assert "_policy" not in mine.inside("nft", "list", "ruleset")
