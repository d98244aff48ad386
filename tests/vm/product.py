"""What users copy to a machine, and what they do with it there: the built file, install.sh, and nothing else.

`program()` is EDGEKUBE_BINARY, or is built by packaging/build.py and kept beside the disks until a source changes. `Site` is a cluster of
test machines seen from outside: installs, joins, and kubectl of this host through the server's door.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.kit.images import archive
from tests.kit.requires import kubectl
from tests.vm.image import CACHE, image

ROOT = Path(__file__).parents[2]
SOURCES = ("edgekube/**/*", "packaging/**/*", "systemd/*", "pyproject.toml")
INBOX = "/root/inbox"
BUILT = "edgekube-*-linux-amd64"
IMAGE = "docker.io/library/busybox:test"


def program():
    """The built file for this machine."""
    if named := os.environ.get("EDGEKUBE_BINARY"):
        return Path(named)
    files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern) if path.is_file() and "__pycache__" not in path.parts)
    stamp = hashlib.sha256()
    for path in files:
        stamp.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    place = CACHE / f"program-{stamp.hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not list(place.glob(BUILT)):
            for old in CACHE.glob("program-*"):
                shutil.rmtree(old)
            build = [sys.executable, str(ROOT / "packaging/build.py"), "--quick", f"--output={place}", f"--work={CACHE / 'build'}"]
            subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return next(place.glob(BUILT))


def eventually(look, *, patience=240.0, pause=1.0):
    """Look until it is true; what was found. An OSError or failed command counts as not yet."""
    deadline = time.monotonic() + patience
    while True:
        trouble = None
        try:
            if found := look():
                return found
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            trouble = error
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {patience:g} s") from trouble
        time.sleep(pause)


def fetch(vm, address, port, path="/index.html"):
    """What a web server tells this machine, which has neither curl nor Python; with the headers."""
    request = f"GET {path} HTTP/1.0\\r\\n\\r\\n"
    return vm.run(f"timeout 10 bash -c 'exec 3<>/dev/tcp/{address}/{port}; printf \"{request}\" >&3; cat <&3'", check=False)


class Site:
    """Machines of which the first becomes the server. Everything a test needs is copied once, then no network is asked for anything."""

    def __init__(self, folder, machines):
        self.folder = folder
        self.machines = machines
        self.server = machines[0]
        self.kubeconfig = folder / "kubeconfig.yaml"
        self._parcel = folder / "inbox"
        self._delivered = []

    def deliver(self, vm, *, debs=False, build=None):
        """Program, installer and an image (and the deb files) into the machine's inbox."""
        if not self._parcel.exists():
            self._parcel.mkdir()
            shutil.copy(ROOT / "packaging/install.sh", self._parcel)
            archive(self._parcel / "busybox.tar")
            found = build or program()
            shutil.copy(found, self._parcel)
        vm.put(self._parcel, INBOX)
        self._delivered.append(vm)
        if debs:
            vm.put(image().debs, f"{INBOX}/debs")

    def install(self, vm, *flags, **delivery):
        """As a person does: copied, one command, and it returns when the node is ready. Seconds that the command took."""
        if vm not in self._delivered:
            self.deliver(vm, **delivery)
        began = time.monotonic()
        vm.run(f"sh {INBOX}/install.sh {' '.join(flags)} --offline {INBOX}", patience=900)
        took = time.monotonic() - began
        eventually(lambda: IMAGE in vm.run("edgekube images list"))  # the archive in the folder, loaded when the node runs
        return took

    def install_server(self, *flags, **delivery):
        took = self.install(self.server, "server", *flags, **delivery)
        text = self.server.run("cat /etc/edgekube/kubeconfig.yaml")
        self.kubeconfig.write_text(text.replace("127.0.0.1:6443", f"127.0.0.1:{self.server.door}"))
        return took

    def join(self, vm, *flags, **delivery):
        """With the command that the server prints, but for the path of the installer."""
        printed = self.server.run("edgekube token create --print-join-command").split()
        words = printed[printed.index("agent") :]
        return self.install(vm, *words, *flags, **delivery)

    def kubectl(self, *words, text="", check=True, patience=120):
        """kubectl on this host; its output."""
        argv = [kubectl(), f"--kubeconfig={self.kubeconfig}", f"--request-timeout={patience}s", *words]
        done = subprocess.run(argv, input=text, text=True, capture_output=True, check=False, timeout=patience + 60)
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def apply(self, *objects):
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *words):
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def pods(self, app="web"):
        """The pods of a Deployment: name, node, address, whether Ready, restarts."""
        found = []
        for pod in self.get("pods", "-l", f"app={app}")["items"]:
            status = pod["status"]
            ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
            restarts = sum(one["restartCount"] for one in status.get("containerStatuses", ()))
            found.append((pod["metadata"]["name"], pod["spec"].get("nodeName"), status.get("podIP"), ready, restarts))
        return found

    def all_ready(self, count, app="web", *, since=()):
        """Whether exactly so many pods are there, all Ready, and each started anew if it is one of `since` (earlier answers); then the pods.

        After a power cut the API tells at first what was true before it.
        """
        pods, restarts = self.pods(app), {pod[0]: pod[4] for pod in since}
        ready = all(pod[3] and pod[4] > restarts.get(pod[0], -1) for pod in pods)
        return pods if len(pods) == count and ready else None


def deployment(name="web", replicas=2, *, spread=False, memory="32Mi"):
    """Pods that answer HTTP with their name; `spread`: no two on one node."""
    probe = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5}
    serve = "trap 'exit 0' TERM; hostname > /www/index.html; httpd -f -p 8080 -h /www & wait"
    container = {"name": "web", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", serve], "readinessProbe": probe,
                 "resources": {"requests": {"cpu": "20m", "memory": "8Mi"}, "limits": {"memory": memory}}}  # fmt: skip
    labels = {"app": name}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}]}}  # fmt: skip
    pod = {"containers": [container], "terminationGracePeriodSeconds": 5, **({"affinity": apart} if spread else {})}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name="web", **spec):
    ports = [{"port": 80, "targetPort": 8080}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": ports, **spec}}
