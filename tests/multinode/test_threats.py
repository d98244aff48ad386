"""What lies about on a node, and who may use its port: the claims of edgekube.agent's threat model that need whole machines."""

import re
import sys
import uuid

import pytest

from tests.kit.nodes import wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

ASK = """
import http.client, ssl, sys
url, token, *credential = sys.argv[1:]
host, _, path = url.partition("/")
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if credential:
    context.load_cert_chain(*credential)
connection = http.client.HTTPSConnection(host, context=context, timeout=10)
try:
    connection.request("GET", "/" + path, headers={"Authorization": "Bearer " + token} if token else {})
    print(connection.getresponse().status)
except (ssl.SSLError, ConnectionError):
    print("no connection")
"""

SECRETS = """
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {env: "correct-horse-SALT", vol: "battery-staple-SALT", sub: "zebra-crossing-SALT"}
---
apiVersion: v1
kind: Pod
metadata: {name: keeps}
spec:
  nodeName: agent-1
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: docker.io/library/busybox:test
    command: [sh, -c, 'cat /secret/vol /sub > /dev/shm/seen; test -n "$ENV" && sleep 3600']
    env: [{name: ENV, valueFrom: {secretKeyRef: {name: db, key: env}}}]
    envFrom: [{prefix: ALL_, secretRef: {name: db}}]
    volumeMounts: [{name: s, mountPath: /secret}, {name: s, mountPath: /sub, subPath: sub}]
  volumes:
  - {name: s, secret: {secretName: db}}
"""


def status(f, path, *, token="", credential=(), port=10250):
    """What the agent's own port answers to somebody on another machine."""
    host = f"{f.net.address(f.agents[0].machine)}:{port}"
    return f.server.machine.run(sys.executable, "-c", ASK, f"{host}{path}", token, *map(str, credential)).strip()


@pytest.fixture(scope="module")
def pods(shared):
    """A pod with secrets in every place that a pod can have them; the secrets."""
    space, salt = f"t-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex
    shared.kubectl("create", "namespace", space)
    shared.apply(SECRETS.replace("SALT", salt), "-n", space)
    shared.kubectl("wait", "--for=condition=Ready", "pod/keeps", "-n", space, "--timeout=60s")
    token = shared.kubectl("exec", "-n", space, "keeps", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    yield [f"{word}-{salt}" for word in ("correct-horse", "battery-staple", "zebra-crossing")] + [token.strip().rpartition(".")[2]]
    shared.kubectl("delete", "namespace", space, "--wait=false")


def test_nobody_without_rights_gets_anything_from_the_port_of_a_node(shared, space):
    f, agent = shared, shared.agents[0]
    paths = ("/pods", "/exec/a/b/c?command=id", "/run/a/b/c?cmd=id", "/containerLogs/a/b/c", "/logs/", "/metrics", "/stats/summary", "/configz", "/")
    assert {status(f, path) for path in paths} == {"401"}
    own = agent.machine.base / "own.pem"
    made = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(own), "-out", str(own))
    f.server.machine.run("openssl", *made, "-subj", "/O=system:masters/CN=admin", check=False)
    if own.exists():
        assert status(f, "/pods", credential=(own,)) == "no connection"
    assert status(f, "/pods", credential=(agent.data / "agent" / "client.crt", agent.data / "agent" / "node.key")) == "403"
    assert status(f, "/pods", token="abcdef.0123456789abcdef") == "401"
    f.kubectl("create", "serviceaccount", "who", "-n", space)

    def token():
        review = f.kubectl("create", "--raw", f"/api/v1/namespaces/{space}/serviceaccounts/who/token", "-f", "-", stdin='{"spec":{}}')
        return re.search(r'"token":"([^"]+)"', review)[1]

    assert {status(f, path, token=token()) for path in paths} == {"403"}
    f.kubectl("create", "clusterrolebinding", space, "--clusterrole=system:kubelet-api-admin", f"--serviceaccount={space}:who")
    allowed = token()
    wait_until(lambda: status(f, "/pods", token=allowed) == "200", seconds=20, what="rights are noticed within the ten seconds answers are kept")
    f.kubectl("delete", "clusterrolebinding", space)


def test_there_is_no_port_that_asks_for_nothing_but_health(shared):
    listening = shared.agents[0].machine.run("ss", "-Htln").splitlines()
    ports = {line.split()[3] for line in listening}
    assert {port.rpartition(":")[2] for port in ports} <= {"10250", "10256", "53"}  # no 10255; DNS is on the cluster's own address
    assert {port for port in ports if port.endswith(":53")} == {"10.43.0.10:53"}
    assert status(shared, "/pods", port=10256) == "no connection"


def test_no_secret_of_a_pod_is_on_the_disk(shared, pods):
    """It is in files, for the pod reads it: but each of them is in memory."""
    machine = shared.agents[0].machine
    for secret in pods:
        held = machine.sh(f"find {machine.base} /run/edgekube -type f -exec grep -laF -e {secret} {{}} +", check=False).split()
        assert held, "the search finds what is there"
        assert {machine.sh(f"stat -f -c %T {file}").strip() for file in held} == {"tmpfs"}, held


def test_files_are_for_root_alone(shared, pods):
    for node in shared.nodes():
        for top in (node.data, "/run/edgekube"):
            assert node.machine.run("stat", "-c", "%a %U", str(top)).split() == ["700", "root"]
        own = f"{node.data}/agent {node.data}/pki {node.data}/db {node.data}/*.db {node.kubeconfig}"
        found = node.machine.sh(f"find {own} -perm /077 -not -type l -printf '%m %P\\n' 2>/dev/null", check=False).splitlines()
        assert {line.rpartition("/")[2].split()[-1] for line in found} <= {"ca.crt"}, found


def test_a_token_is_neither_shown_nor_told(shared):
    """The agent was started with --token on its command line."""
    agent = shared.agents[0]
    shown = agent.machine.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False)
    assert "edgekube agent" in shown
    logs = "".join(node.log_text() for node in shared.nodes())
    for text in (shown, logs):
        assert not re.search(r"\b[a-z0-9]{6}\.(?=[a-z0-9]*[g-z])[a-z0-9]{16}\b", text)
    assert not re.search(r"PRIVATE KEY|eyJ[A-Za-z0-9_-]{20,}\.", logs)
