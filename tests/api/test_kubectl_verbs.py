"""The real kubectl against the server: apply, patch, scale, diff, delete, wait, impersonate."""

import asyncio

import pytest

from tests.kit.requires import needs

pytestmark = needs("kubectl")

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: "busybox:1", command: [sleep, "1000"], resources: {limits: {cpu: 500m, memory: 64Mi}}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {a: b}
"""


class Kubectl:
    def __init__(self, live):
        self._argv = ("--kubeconfig", str(live.kubeconfig), "--cache-dir", str(live.folder / "cache"))

    async def __call__(self, *arguments, stdin="", code=0):
        process = await asyncio.create_subprocess_exec(
            "kubectl", *self._argv, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, _ = await process.communicate(stdin.encode())
        assert process.returncode == code, out.decode()
        return out.decode().strip()


@pytest.fixture
def kubectl(live):
    return Kubectl(live)


async def test_apply_is_stable_and_diff_sees_changes(kubectl):
    assert await kubectl("apply", "-f", "-", stdin=MANIFEST) == "deployment.apps/web created\nconfigmap/cm created"
    assert await kubectl("apply", "-f", "-", stdin=MANIFEST) == "deployment.apps/web unchanged\nconfigmap/cm unchanged"
    assert await kubectl("diff", "-f", "-", stdin=MANIFEST) == ""
    changed = MANIFEST.replace("a: b", "a: c")
    assert "+  a: c" in await kubectl("diff", "-f", "-", stdin=changed, code=1)
    assert await kubectl("apply", "-f", "-", stdin=changed) == "deployment.apps/web unchanged\nconfigmap/cm configured"
    assert await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST) == (
        "deployment.apps/web serverside-applied\nconfigmap/cm serverside-applied"
    )
    assert await kubectl("get", "cm", "cm", "-o", "jsonpath={.data.a}") == "b"


@needs("kubectl>=1.27")
async def test_get_scale_patch_label_delete(kubectl):
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert (await kubectl("get", "deploy", "web")).split()[:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert await kubectl("scale", "deploy", "web", "--replicas=5") == "deployment.apps/web scaled"
    assert await kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.metadata.generation}") == "5 2"
    assert await kubectl("wait", "deploy/web", "--for=jsonpath={.spec.replicas}=5", "--timeout=5s") == "deployment.apps/web condition met"
    assert await kubectl("label", "cm", "cm", "x=y") == "configmap/cm labeled"
    assert await kubectl("get", "cm", "-l", "x=y", "-o", "name") == "configmap/cm"
    assert await kubectl("patch", "cm", "cm", "--type=json", "-p", '[{"op":"add","path":"/data/q","value":"1"}]') == "configmap/cm patched"
    assert await kubectl("set", "image", "deploy/web", "c=busybox:2") == "deployment.apps/web image updated"
    assert await kubectl("delete", "cm", "cm") == 'configmap "cm" deleted'
    assert "NotFound" in await kubectl("get", "cm", "cm", code=1)


@needs("kubectl>=1.27")
async def test_refusals_read_as_everywhere(kubectl):
    await kubectl("create", "configmap", "cm")
    assert 'configmaps "cm" already exists' in await kubectl("create", "configmap", "cm", code=1)
    bad = MANIFEST.replace("replicas: 3", "replicaz: 3")
    assert 'unknown field "spec.replicaz"' in await kubectl("apply", "-f", "-", stdin=bad, code=1)
    assert await kubectl("get", "pods", "--as=jane", code=1) == (
        'Error from server (Forbidden): pods is forbidden: User "jane" cannot list resource "pods" in API group "" '
        'in the namespace "default"'
    )
    assert await kubectl("auth", "can-i", "get", "pods") == "yes"
    assert await kubectl("auth", "can-i", "get", "pods", "--as=jane", code=1) == "no"


async def test_watch_shows_what_happens(kubectl, live):
    await kubectl("create", "configmap", "first")
    watching = asyncio.create_subprocess_exec(
        "kubectl", *kubectl._argv, "get", "cm", "-w", "-o", "name", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    process = await watching
    async with asyncio.timeout(20):
        assert (await process.stdout.readline()).decode().strip() == "configmap/first"
        await kubectl("create", "configmap", "second")
        assert (await process.stdout.readline()).decode().strip() == "configmap/second"
    process.terminate()
    await process.wait()
