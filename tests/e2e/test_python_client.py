"""The official Python client, which speaks the older WebSocket dialects: exec, port-forward, logs, watch, apply."""

import threading

import pytest

from tests.e2e.manifests import pod
from tests.kit import netns as ns
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


@pytest.fixture
def inside(space):
    """Run a function with a client of the kubernetes package inside the server's network namespace."""

    def run(work):
        def call():
            from kubernetes import client, config

            config.load_kube_config(config_file=str(space.cluster.kubeconfig))
            return work(client)

        return ns.call_inside(space.cluster.netns, call)

    return run


def test_exec_logs_and_port_forward(space, inside):
    space.apply(pod("py", "mkdir -p /tmp/w; echo served > /tmp/w/index.html; echo logged; exec httpd -f -p 8080 -h /tmp/w"))
    space.kubectl("wait", "--for=condition=Ready", "pod/py", "--timeout=60s")

    def work(client):
        from kubernetes.stream import portforward, stream

        core = client.CoreV1Api()
        out = stream(core.connect_get_namespaced_pod_exec, "py", space.name, command=["sh", "-c", "echo out; exit 3"],
                     stdout=True, stderr=True, stdin=False, tty=False, _preload_content=False)  # fmt: skip
        out.run_forever(timeout=20)
        text, code = out.read_stdout(), out.returncode
        logs = core.read_namespaced_pod_log("py", space.name)
        forward = portforward(core.connect_get_namespaced_pod_portforward, "py", space.name, ports="8080")
        connection = forward.socket(8080)
        connection.setblocking(True)
        connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
        answer = b""
        while data := connection.recv(4096):
            answer += data
        return text, code, logs, answer

    text, code, logs, answer = inside(work)
    assert (text, code, logs) == ("out\n", 3, "logged\n")
    assert answer.endswith(b"served\n")


def test_watch_and_patch(space, inside):
    def work(client):
        from kubernetes import watch

        core, seen = client.CoreV1Api(), []

        def follow():
            for event in watch.Watch().stream(core.list_namespaced_config_map, space.name, timeout_seconds=20, label_selector="mine"):
                seen.append((event["type"], event["object"].data))
                if event["type"] == "DELETED":
                    return

        thread = threading.Thread(target=lambda: ns.call_inside(space.cluster.netns, follow))
        thread.start()
        core.create_namespaced_config_map(space.name, {"metadata": {"name": "c", "labels": {"mine": ""}}, "data": {"a": "1"}})
        core.patch_namespaced_config_map("c", space.name, {"data": {"a": "2"}})
        core.delete_namespaced_config_map("c", space.name)
        thread.join(30)
        return seen

    assert inside(work) == [("ADDED", {"a": "1"}), ("MODIFIED", {"a": "2"}), ("DELETED", {"a": "2"})]
