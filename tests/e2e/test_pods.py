"""What one pod may ask of its node: each row a real pod in a real container."""

import json
import re

import pytest

from tests.e2e.manifests import IMAGE, pod
from tests.kit.cluster import wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


def run(space, name, command, *, spec="", container="", phase="Succeeded", policy="Never"):
    """A pod run to its end; returns its log."""
    space.apply(pod(name, command, spec=f"restartPolicy: {policy}\n  {spec}", container=container))
    wait_until(lambda: space.get("pod", name)["status"].get("phase") == phase, what=f"{name} {phase}")
    return space.kubectl("logs", name)


def status(space, name, index=0):
    statuses = space.get("pod", name)["status"].get("containerStatuses") or [{}]
    return statuses[index]


def events(space, name):
    found = space.get("events", "--field-selector", f"involvedObject.name={name}")["items"]
    return [(event["reason"], event["message"]) for event in found]


def test_environment_from_every_source(space):
    space.kubectl("create", "configmap", "plain", "--from-literal=COLOR=red", "--from-literal=SIZE=big")
    space.kubectl("create", "secret", "generic", "hidden", "--from-literal=PASSWORD=s3cret")
    container = """
    env:
    - {name: DIRECT, value: "one"}
    - {name: EXPANDED, value: "$(DIRECT)-two-$$(DIRECT)"}
    - {name: COLOR_KEY, valueFrom: {configMapKeyRef: {name: plain, key: COLOR}}}
    - {name: PASS_KEY, valueFrom: {secretKeyRef: {name: hidden, key: PASSWORD}}}
    - {name: MISSING, valueFrom: {configMapKeyRef: {name: none, key: x, optional: true}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    envFrom: [{configMapRef: {name: plain}}, {secretRef: {name: hidden}, prefix: X_}]
    resources: {limits: {cpu: 250m, memory: 32Mi}}
"""
    found = dict(line.split("=", 1) for line in run(space, "env", "env", container=container).splitlines() if "=" in line)
    expected = {
        "DIRECT": "one", "EXPANDED": "one-two-$(DIRECT)", "COLOR_KEY": "red", "PASS_KEY": "s3cret", "POD": "env", "LABEL": "env",
        "CPU": "250", "COLOR": "red", "SIZE": "big", "X_PASSWORD": "s3cret", "HOSTNAME": "env", "KUBERNETES_SERVICE_HOST": "10.43.0.1",
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert re.match(r"10\.42\.0\.\d+", found["IP"])
    assert "MISSING" not in found


def test_a_missing_reference_is_waited_for_and_named(space):
    space.apply(pod("waiter", "env; sleep 600", container="envFrom: [{configMapRef: {name: later}}]"))
    waiting = wait_until(lambda: status(space, "waiter").get("state", {}).get("waiting", {}).get("message"))
    assert waiting == 'configmap "later" not found'
    assert status(space, "waiter")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    space.kubectl("create", "configmap", "later", "--from-literal=A=b")
    space.kubectl("wait", "--for=condition=Ready", "pod/waiter", "--timeout=60s")


def test_volumes_of_every_kind(space):
    space.kubectl("create", "configmap", "files", "--from-literal=a=alpha", "--from-literal=b=beta")
    space.kubectl("create", "secret", "generic", "keys", "--from-literal=key=top")
    spec = """volumes:
  - {name: empty, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: cm, configMap: {name: files, items: [{key: a, path: deep/a}], defaultMode: 0400}}
  - {name: secret, secret: {secretName: keys}}
  - {name: host, hostPath: {path: /etc, type: Directory}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - configMap: {name: files}
      - secret: {name: keys, items: [{key: key, path: secret-key}]}
      - serviceAccountToken: {path: token, expirationSeconds: 600, audience: x}
"""
    container = """
    volumeMounts:
    - {name: empty, mountPath: /empty}
    - {name: memory, mountPath: /memory}
    - {name: cm, mountPath: /cm}
    - {name: secret, mountPath: /secret}
    - {name: host, mountPath: /host-etc, readOnly: true}
    - {name: down, mountPath: /down}
    - {name: all, mountPath: /all}
    - {name: cm, mountPath: /single, subPath: deep/a}
"""
    command = (
        "echo x > /empty/file && cat /cm/deep/a /single /secret/key /all/b /all/secret-key; echo; cat /down/labels; echo; "
        "grep ' /memory ' /proc/mounts | cut -d' ' -f3; touch /host-etc/x 2>&1; stat -L -c %a /cm/deep/a; wc -c < /all/token; test -s /host-etc/passwd && echo host; "
        "ls /var/run/secrets/kubernetes.io/serviceaccount"
    )
    lines = run(space, "volumes", command, spec=spec, container=container).splitlines()
    assert lines[0] == "alphaalphatopbetatop"
    assert lines[1] == 'app="volumes"'
    assert lines[2] == "tmpfs"
    assert "Read-only file system" in lines[3]
    assert lines[4] == "400"
    assert int(lines[5]) > 300
    assert lines[6] == "host"
    assert lines[7:] == ["ca.crt", "namespace", "token"]


@needs("kubectl>=1.27")
def test_the_service_account_token_speaks_to_the_api(space):
    command = "sleep 600"
    space.apply(pod("client", command))
    space.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    token = space.kubectl("exec", "client", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    whoami = json.loads(space.cluster.kubectl("--token", token, "auth", "whoami", "-o", "json", "--kubeconfig", _anonymous(space.cluster)))
    assert whoami["status"]["userInfo"]["username"] == f"system:serviceaccount:{space.name}:default"


def _anonymous(cluster):
    """The admin kubeconfig without its credential."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {}
    path = cluster.base / "anonymous.yaml"
    path.write_text(json.dumps(config))
    return str(path)


def test_init_containers_run_first_in_order_and_sidecars_beside(space):
    spec = f"""initContainers:
  - {{name: first, image: "{IMAGE}", command: [sh, -c, "echo 1 >> /share/log"], volumeMounts: [{{name: share, mountPath: /share}}]}}
  - {{name: side, image: "{IMAGE}", restartPolicy: Always, command: [sh, -c, "echo side >> /share/log; sleep 600"], startupProbe: {{exec: {{command: [grep, side, /share/log]}}, periodSeconds: 1}}, volumeMounts: [{{name: share, mountPath: /share}}]}}
  - {{name: second, image: "{IMAGE}", command: [sh, -c, "echo 2 >> /share/log"], volumeMounts: [{{name: share, mountPath: /share}}]}}
  volumes: [{{name: share, emptyDir: {{}}}}]
"""
    log = run(space, "ordered", "cat /share/log", spec=spec, container="volumeMounts: [{name: share, mountPath: /share}]")
    assert log.split() == ["1", "side", "2"]


def test_a_failing_container_backs_off_and_counts(space):
    space.apply(pod("crasher", "echo attempt; exit 3"))
    found = wait_until(
        lambda: status(space, "crasher").get("state", {}).get("waiting") if status(space, "crasher").get("restartCount") else None
    )
    assert found["reason"] == "CrashLoopBackOff"
    assert re.match(r"back-off 10s restarting failed container=main pod=crasher_t-\w+\(", found["message"])
    last = status(space, "crasher")["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (3, "Error")
    assert space.kubectl("logs", "crasher", "--previous").strip() == "attempt"
    assert space.kubectl("get", "pod", "crasher", "--no-headers").split()[2] in ("CrashLoopBackOff", "Error")
    assert "BackOff" in [reason for reason, _ in events(space, "crasher")]


def test_exit_codes_and_phases(space):
    run(space, "fine", "exit 0")
    run(space, "broken", "exit 42", phase="Failed")
    assert status(space, "fine")["state"]["terminated"]["reason"] == "Completed"
    terminated = status(space, "broken")["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (42, "Error")
    assert terminated["containerID"].startswith("podman://")


def test_out_of_memory_is_told(space):
    run(space, "hungry", "tail /dev/zero", phase="Failed", container="resources: {limits: {memory: 16Mi}}")
    terminated = status(space, "hungry")["state"]["terminated"]
    assert (terminated["reason"], terminated["exitCode"]) == ("OOMKilled", 137)


def test_a_command_that_is_not_there(space):
    space.apply(pod("nothing", "x", container="").replace("command: [sh, -c, 'x']", "command: [/no/such/program]"))
    found = wait_until(
        lambda: (
            status(space, "nothing").get("lastState", {}).get("terminated") or status(space, "nothing").get("state", {}).get("terminated")
        )
    )
    assert (found["reason"], found["exitCode"]) == ("StartError", 128)
    assert "no such file or directory" in found["message"]


def test_an_image_that_is_not_there(space):
    space.apply(pod("noimage", "x").replace(IMAGE, "registry.invalid/none:1"))
    found = wait_until(
        lambda: status(space, "noimage").get("state", {}).get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
    )
    assert found
    space.apply(pod("never", "x", container="imagePullPolicy: Never").replace(IMAGE, "registry.invalid/none:1"))
    wait_until(lambda: status(space, "never").get("state", {}).get("waiting", {}).get("reason") == "ErrImageNeverPull")


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        ("exec", "exec: {command: [test, -f, /tmp/ok]}"),
        ("http", "httpGet: {path: /ok, port: 8080}"),
        ("tcp", "tcpSocket: {port: 9090}"),
    ],
)
def test_readiness(space, name, probe):
    command = "mkdir -p /tmp/www; httpd -p 8080 -h /tmp/www; while [ ! -f /tmp/go ]; do sleep 0.1; done; touch /tmp/ok /tmp/www/ok; while [ ! -f /tmp/stop ]; do nc -l -p 9090 -e true; done & while [ -f /tmp/go ]; do sleep 0.1; done; rm /tmp/ok /tmp/www/ok; kill %1; sleep 600"
    space.apply(pod(f"ready-{name}", command, container=f"readinessProbe: {{{probe}, periodSeconds: 1, failureThreshold: 1}}"))
    wait_until(lambda: status(space, f"ready-{name}").get("started"))
    assert status(space, f"ready-{name}")["ready"] is False
    space.kubectl("exec", f"ready-{name}", "--", "touch", "/tmp/go")
    space.kubectl("wait", "--for=condition=Ready", f"pod/ready-{name}", "--timeout=30s")


def test_liveness_restarts_and_says_why(space):
    probe = "livenessProbe: {exec: {command: [test, -f, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1, initialDelaySeconds: 1}"
    space.apply(pod("mortal", "touch /tmp/alive; sleep 3; rm /tmp/alive; sleep 600", container=probe))
    wait_until(lambda: status(space, "mortal").get("restartCount", 0) >= 1, seconds=40)
    reasons = dict(events(space, "mortal"))
    assert reasons["Killing"] == "Container main failed liveness probe, will be restarted"
    assert reasons["Unhealthy"].startswith("Liveness probe failed")


def test_security_context(space):
    spec = "securityContext: {runAsUser: 1000, runAsGroup: 1001, fsGroup: 3000, supplementalGroups: [2000]}\n  volumes: [{name: v, emptyDir: {}}]"
    container = """
    volumeMounts: [{name: v, mountPath: /v}]
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
    command = "id -u; id -g; id -G; touch /x 2>&1; touch /v/file && stat -c %g /v/file; grep -E 'CapEff|NoNewPrivs' /proc/self/status"
    lines = run(space, "confined", command, spec=spec, container=container).splitlines()
    assert lines[:2] == ["1000", "1001"]
    assert {"2000", "3000"} <= set(lines[2].split())
    assert "Read-only file system" in lines[3]
    assert lines[4] == "3000"
    assert re.sub(r"\s+", " ", " ".join(lines[5:])) == "CapEff: 0000000000000000 NoNewPrivs: 1"
    space.apply(pod("rooted", "id", container="securityContext: {runAsNonRoot: true}"))
    waiting = wait_until(lambda: status(space, "rooted").get("state", {}).get("waiting", {}).get("message"))
    assert "container has runAsNonRoot and image will run as root" in waiting


def test_host_network_and_pid(space):
    log = run(space, "hosty", "hostname; ip -o addr show lo; ps | wc -l", spec="hostNetwork: true\n  hostPID: true")
    assert "10.42.0.1/32" in log
    assert int(log.split()[-1]) > 10
    assert space.get("pod", "hosty")["status"]["podIP"] == space.get("pod", "hosty")["status"]["hostIP"]


def test_shared_processes_and_ipc(space):
    spec = f"""shareProcessNamespace: true
  initContainers:
  - {{name: side, image: "{IMAGE}", restartPolicy: Always, command: [sh, -c, "echo hi > /dev/shm/note; exec sleep 543"]}}
"""
    log = run(space, "together", "sleep 0.5; ps | grep -c 'sleep 54[3]'; cat /dev/shm/note", spec=spec)
    assert log.split() == ["1", "hi"]


def test_graceful_end_and_hooks(space):
    container = "lifecycle: {postStart: {exec: {command: [sh, -c, 'echo post > /share/log']}}, preStop: {exec: {command: [sh, -c, 'echo pre >> /share/log']}}}\n    volumeMounts: [{name: s, mountPath: /share}]"
    folder = space.cluster.base / "hooks"
    folder.mkdir()
    spec = f"volumes: [{{name: s, hostPath: {{path: {folder}}}}}]"
    command = "trap 'echo term >> /share/log; exit 0' TERM; while true; do sleep 0.1; done"
    space.apply(
        pod("polite", command, spec=spec, container=container).replace(
            "terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 10"
        )
    )
    space.kubectl("wait", "--for=condition=Ready", "pod/polite", "--timeout=60s")
    space.kubectl("delete", "pod", "polite", "--timeout=30s")
    assert (folder / "log").read_text().split() == ["post", "pre", "term"]


def test_what_does_not_fit_waits_and_says_so(space):
    space.apply(pod("giant", "x", container='resources: {requests: {cpu: "500"}}'))
    conditions = wait_until(lambda: space.get("pod", "giant")["status"].get("conditions"))
    (found,) = (entry for entry in conditions if entry["type"] == "PodScheduled")
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert found["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
    wait_until(lambda: "FailedScheduling" in [reason for reason, _ in events(space, "giant")])


def test_names_and_files_of_the_pod(space):
    spec = "hostname: box\n  subdomain: sub\n  hostAliases: [{ip: 192.0.2.7, hostnames: [elsewhere]}]"
    log = run(space, "named", "hostname; hostname -f; cat /etc/hosts /etc/resolv.conf", spec=spec)
    assert log.splitlines()[0] == "box"
    assert "192.0.2.7\telsewhere" in log
    assert f"search {space.name}.svc.cluster.local svc.cluster.local cluster.local" in log
    assert "nameserver 10.43.0.10" in log
    assert "options ndots:5" in log


def test_termination_message_and_deadline(space):
    run(space, "last-words", "echo farewell > /dev/termination-log; exit 1", phase="Failed")
    assert status(space, "last-words")["state"]["terminated"]["message"] == "farewell\n"
    run_to = "sleep 600"
    space.apply(pod("limited", run_to, spec="restartPolicy: Never\n  activeDeadlineSeconds: 1"))
    wait_until(lambda: space.get("pod", "limited")["status"].get("reason") == "DeadlineExceeded")
    assert space.get("pod", "limited")["status"]["phase"] == "Failed"


@needs("kubectl>=1.27")
def test_debugging_a_running_pod(space):
    space.apply(pod("buggy", "exec sleep 1234"))
    wait_until(lambda: status(space, "buggy").get("ready"), what="buggy runs")
    space.kubectl("debug", "buggy", f"--image={IMAGE}", "--target=main", "-c", "look", "--", "sh", "-c", "ps; exit 3")
    wait_until(lambda: "terminated" in str(space.get("pod", "buggy")["status"].get("ephemeralContainerStatuses")), what="look ended")
    assert "sleep 1234" in space.kubectl("logs", "buggy", "-c", "look")
    (look,) = space.get("pod", "buggy")["status"]["ephemeralContainerStatuses"]
    assert look["state"]["terminated"]["exitCode"] == 3
    assert status(space, "buggy")["restartCount"] == 0
