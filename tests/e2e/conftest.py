"""One cluster for the whole folder: tests use namespaces of their own. Tests that break the server start their own cluster."""

import uuid

import pytest

from tests.kit.cluster import cluster
from tests.kit.images import archive
from tests.kit.requires import has


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    archive(path)
    return path


@pytest.fixture(scope="session")
def shared(image):
    if not (has("root") and has("podman") and has("netns")):
        pytest.skip("NOT TESTED HERE: needs root, podman, netns")
    with cluster() as found:
        found.edgekube("images", "import", str(image))
        yield found


@pytest.fixture
def space(shared):
    """A namespace of the shared cluster; a bound `kubectl` for it."""
    name = f"t-{uuid.uuid4().hex[:6]}"
    shared.kubectl("create", "namespace", name)
    yield Space(shared, name)
    shared.kubectl("delete", "namespace", name, "--wait=false")


class Space:
    """kubectl in one namespace."""

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name

    def kubectl(self, *arguments, **options):
        return self.cluster.kubectl("-n", self.name, *arguments, **options)

    def apply(self, manifest):
        return self.kubectl("apply", "-f", "-", stdin=manifest)

    def fails(self, *arguments, **options):
        return self.cluster.fails("-n", self.name, *arguments, **options)

    def get(self, *arguments):
        return self.cluster.get("-n", self.name, *arguments)
