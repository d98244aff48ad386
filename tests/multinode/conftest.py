"""One fleet for the whole folder: a server and one agent. Tests that break nodes or wires start their own."""

import uuid

import pytest

from tests.kit.nodes import fleet
from tests.kit.requires import has


@pytest.fixture(scope="session")
def shared():
    if not all(map(has, ("root", "podman", "netns", "nft", "busybox", "kubectl"))):
        pytest.skip("NOT TESTED HERE: needs root, podman, netns, nft, busybox, kubectl")
    with fleet(agents=1) as found:
        yield found


@pytest.fixture
def space(shared):
    """A namespace of the shared fleet, gone afterwards."""
    name = f"t-{uuid.uuid4().hex[:6]}"
    shared.kubectl("create", "namespace", name)
    yield name
    shared.kubectl("delete", "namespace", name, "--wait=false")
