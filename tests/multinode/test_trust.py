"""Trust between nodes, seen from outside: a revoked node is cut off, certificates are renewed under traffic, and years off do not matter."""

import re
import threading
import time

from tests.e2e.manifests import pod
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

YEAR = 365 * 86400


def connected(agent):
    return agent.machine.run("ss", "-Htn", "state", "established", "dport", "=", ":6443") != ""


def test_a_revoked_node_is_out_within_two_seconds_and_may_come_back_as_another():
    with fleet(agents=1) as f:
        agent = f.agents[0]
        f.apply(pod("stays", "sleep 3600", spec="nodeName: agent-1"))
        f.kubectl("wait", "--for=condition=Ready", "pod/stays", "--timeout=30s")
        assert connected(agent)
        offset = agent.log.stat().st_size
        f.server.edgekube("node", "revoke", "agent-1")
        start = time.monotonic()
        wait_until(lambda: not connected(agent), seconds=5)
        assert time.monotonic() - start < 2
        agent.says("this node was revoked: it gets no orders any more", offset=offset)
        assert "run edgekube uninstall on it and start it with a new token" in agent.log_text()[offset:]
        assert "agent-1" not in {node["metadata"]["name"] for node in f.get("nodes")["items"]}
        assert agent.machine.sh("pgrep -f 'sleep 3600' | wc -l").strip() != "0"  # nobody orders its pods to end either
        agent.stop()
        offset = agent.log.stat().st_size
        agent.start()
        agent.says("this node was revoked", offset=offset)
        assert agent.log_text().count("this node was revoked") == 2
        agent.uninstall()
        agent.start(f"--token={f.token()}")
        f.ready(agent)


def test_certificates_are_renewed_under_traffic():
    with fleet(agents=1, server_flags=("--certificate-life-seconds=8",)) as f:
        agent = f.agents[0]
        f.apply(pod("ticks", "while true; do date +%s; sleep 0.2; done", spec="nodeName: agent-1"))
        f.kubectl("wait", "--for=condition=Ready", "pod/ticks", "--timeout=30s")
        heard, failures, stop = [], [], threading.Event()

        def ask():
            while not stop.is_set():
                try:
                    heard.append(f.kubectl("exec", "ticks", "--", "echo", "ok"))
                except AssertionError as error:
                    failures.append(str(error))

        asking = threading.Thread(target=ask)
        asking.start()
        files = [agent.data / "agent" / name for name in ("client.crt", "serving.crt")]
        for _ in range(2):
            before = [path.read_bytes() for path in files]
            wait_until(lambda before=before: all(path.read_bytes() != old for path, old in zip(files, before, strict=True)), seconds=30)
        stop.set()
        asking.join()
        assert failures == []
        assert len(heard) > 10
        assert f.condition("agent-1") == "True"
        status = f.get("pod", "ticks")["status"]["containerStatuses"][0]
        assert status["restartCount"] == 0
        assert "connection to the server lost" not in agent.log_text()
        wait_until(lambda: served(agent) == agent.machine.run("openssl", "x509", "-noout", "-serial", "-in", str(files[1])))

        agent.stop()
        agent.start(env={"EDGEKUBE_FAILPOINTS": "renewal.write=kill"}, wait=False)
        assert agent.process.wait() == -9
        agent.start()
        f.kubectl("wait", "--for=condition=Ready", "pod/ticks", "--timeout=30s")
        wait_until(lambda: f.kubectl("exec", "ticks", "--", "echo", "ok") == "ok\n")


def served(agent):
    return agent.machine.sh("echo | openssl s_client -connect 127.0.0.1:10250 2>/dev/null | openssl x509 -noout -serial")


def test_the_serving_certificate_follows_the_address():
    with fleet(agents=1, image=False) as f:
        agent = f.agents[0]
        new = f.net.renumber(agent.machine)
        names = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(agent.data / "agent" / "serving.crt")]
        wait_until(lambda: f"IP Address:{new}" in agent.machine.run(*names), seconds=30)
        f.kubectl("get", "--raw", "/api/v1/nodes/agent-1/proxy/healthz")
        assert agent.machine.run(*names).count("IP Address") == 1


def test_a_node_that_was_off_for_years_comes_back_by_itself():
    with fleet(agents=0, image=False) as f:
        agent = f.add(f.machine("shed"))
        f.ready(agent)
        agent.stop()
        f.server.stop()
        flags = []
        for node in (f.server, agent):
            offset = node.machine.base / "offset"
            offset.write_text(str(3 * YEAR))
            flags.append(f"--test-clock-offset-file={offset}")
        f.server.start(flags[0])
        offset = agent.log.stat().st_size
        agent.start(flags[1])
        agent.says("connected to the server", offset=offset, seconds=30)
        agent.says("certificate renewed file=serving.crt", offset=offset, seconds=30)
        said = agent.log_text()[offset:]
        assert re.search(r"certificate renewed file=client.crt until=20(29|30)", said)
        assert "renewed by proof of key" in f.server.log_text()


def test_a_disk_that_damaged_certificates_stops_no_node():
    with fleet(agents=1, image=False) as f:
        (agent,) = f.agents
        folder = agent.data / "agent"
        agent.kill()
        for name in ("client.crt", "serving.crt"):
            (folder / name).write_bytes(b"")
        agent.start()
        wait_until(lambda: f.kubectl("get", "--raw", "/api/v1/nodes/agent-1/proxy/healthz") == "ok", what="it has both again")
        agent.kill()
        (folder / "ca.crt").write_bytes(b"")
        line = agent.refused()
        assert "ca.crt is missing or damaged: start this node once with a new token" in line
        agent.start(f"--token={f.token()}")
        f.ready()
        assert [node["metadata"]["name"] for node in f.get("nodes")["items"]] == ["agent-1", "server"]
