"""Pulling with registries.yaml on real podman and real registries: fallback, rewrite, credentials, certificates, live changes."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgekube.kubelet.runtime.podman import PodmanRuntime
from edgekube.kubelet.runtime.protocol import RuntimeFailure
from edgekube.lib import pki
from edgekube.lib.clock import SystemClock
from tests.kit import images
from tests.kit.registry import Registry, registry
from tests.kit.requires import needs
from tests.kit.runtimes import Place, place, running

pytestmark = needs("root", "podman", "busybox")
DEAD = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def spot():
    with place() as found:
        images.archive(found.base / "tool.tar", command=("tool",))
        yield found


@contextlib.asynccontextmanager
async def at_work(spot: Place) -> AsyncIterator[PodmanRuntime]:
    spot.config.registries.unlink(missing_ok=True)
    async with running(spot.runtime()) as runtime:
        yield runtime
        for one in await runtime.images():
            await runtime.remove_image(one.id)


def shop_with(shop: Registry, spot: Place, *names: str) -> Registry:
    for name in names:
        shop.add(name, "v1", spot.base / "tool.tar")
    return shop


async def test_a_rewritten_mirror_and_past_a_dead_one_to_the_own_registry_under_the_own_name(spot: Place) -> None:
    async with registry() as mirror, registry() as own, at_work(spot) as runtime:
        shop_with(mirror, spot, "hub/tool")
        shop_with(own, spot, "team/tool", "team/other")
        file = spot.config.registries
        file.write_text(f"""
mirrors:
  "{own.address}":
    endpoint: ["{DEAD}", "http://{mirror.address}"]
    rewrite: {{"^team/(.*)": "hub/$1"}}
""")
        found = await runtime.pull(f"{own.address}/team/tool:v1")
        assert found.tags == (f"{own.address}/team/tool:v1",)
        assert own.asked == []
        other = await runtime.pull(f"{own.address}/team/other:v1")
        assert f"{own.address}/team/other:v1" in other.tags
        assert "/v2/team/other/manifests/v1" in own.asked
        assert "/v2/hub/other/manifests/v1" in mirror.asked
        with pytest.raises(RuntimeFailure) as caught:
            await runtime.pull(f"{own.address}/team/none:v1")
        text = str(caught.value)
        assert text.startswith(f'failed to pull image "{own.address}/team/none:v1": tried 3 endpoints: ')
        assert "127.0.0.1:1/hub/none:v1: can not be reached: connection refused" in text.lower()
        assert f"{mirror.address}/hub/none:v1: " in text
        assert f"; {own.address}/team/none:v1: " in text


async def test_by_digest_through_a_mirror(spot: Place) -> None:
    async with registry() as mirror, at_work(spot) as runtime:
        shop_with(mirror, spot, "library/tool")
        digest = next(name for name in mirror.manifests if "@" not in name and "sha256" in name).partition(":")[2]
        spot.config.registries.write_text(f'mirrors: {{docker.io: {{endpoint: ["http://{mirror.address}"]}}}}')
        found = await runtime.pull(f"tool@{digest}")
        assert found.digests == (f"docker.io/library/tool@{digest}",)
        again = await runtime.image(f"docker.io/library/tool@{digest}")
        assert again is not None
        assert again.id == found.id


async def test_credentials_are_for_their_registry_and_pull_secrets_win(spot: Place) -> None:
    async with registry() as mirror, registry() as own, at_work(spot) as runtime:
        shop_with(mirror, spot, "team/tool")
        shop_with(own, spot, "team/tool", "team/own")
        mirror.credentials, own.credentials = "m:1", "o:2"
        spot.config.registries.write_text(f"""
mirrors: {{"{own.address}": {{endpoint: ["http://{mirror.address}"]}}}}
configs:
  "{mirror.address}": {{auth: {{username: m, password: "1"}}}}
  "{own.address}": {{auth: {{username: o, password: wrong}}}}
""")
        await runtime.pull(f"{own.address}/team/tool:v1", username="o", password="2")
        assert own.asked == []
        await runtime.pull(f"{own.address}/team/own:v1", username="o", password="2")
        with pytest.raises(RuntimeFailure, match="unauthorized"):
            await runtime.pull(f"{own.address}/team/own:v1")


def tls(folder: Path, name: str) -> ssl.SSLContext:
    """A serving context for 127.0.0.1; its authority's certificate is <folder>/<name>-ca.pem."""
    authority = pki.create_authority(name, SystemClock().now())
    (folder / f"{name}-ca.pem").write_bytes(pki.certificate_pem(authority))
    subject = pki.Subject("registry", server=True, addresses=("127.0.0.1",))
    (folder / f"{name}.pem").write_bytes(pki.issue(authority, subject, SystemClock().now()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / f"{name}.pem")
    return context


async def test_certificates_and_changes_without_a_restart(spot: Place) -> None:
    """An unknown authority, a wrong one, the right one, none checked: each counts from the next pull on; a broken file changes nothing."""
    context = tls(spot.base, "right")
    tls(spot.base, "wrong")
    async with registry(context) as shop, at_work(spot) as runtime:
        shop_with(shop, spot, "team/tool")
        ref, file = f"{shop.address}/team/tool:v1", spot.config.registries

        def say(text: str) -> None:
            file.write_text(f'configs: {{"{shop.address}": {{tls: {{{text}}}}}}}')

        say("insecure_skip_verify: false")
        with pytest.raises(RuntimeFailure, match="certificate signed by unknown authority"):
            await runtime.pull(ref)
        say(f"ca_file: {spot.base}/wrong-ca.pem")
        with pytest.raises(RuntimeFailure, match="certificate signed by unknown authority"):
            await runtime.pull(ref)
        say(f"ca_file: {spot.base}/right-ca.pem")
        await runtime.pull(ref)
        file.write_text("mirrors: {x: {endpoints: []}}")
        await runtime.pull(ref)
        with pytest.raises(RuntimeFailure, match=r"registries.yaml does not count: .*unknown key 'endpoints'"):
            await runtime.pull(f"{shop.address}/team/none:v1")
        say("insecure_skip_verify: true")
        await runtime.pull(ref)
        file.unlink()
        await runtime.pull(ref)  # a registry on the loopback needs no certificate
