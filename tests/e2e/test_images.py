"""Images without a registry, on a real node: imported, dropped into the folder, pinned, collected. Each test has images of its own."""

import json
import subprocess

import pytest

from tests.kit.archives import Layout
from tests.kit.cluster import CommandFailed, cluster, wait_until
from tests.kit.images import archive
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "kubectl")


def pod(name, image, policy="IfNotPresent"):
    return json.dumps({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": image, "imagePullPolicy": policy, "command": ["sleep", "3600"]}],
        },
    })  # fmt: skip


def running(space, name):
    return space.get("pod", name)["status"].get("phase") == "Running"


def listed(cluster):
    """name -> (pinned, in use)."""
    rows = [line.split() for line in cluster.edgekube("images", "list").splitlines()[1:]]
    return {row[0]: (row[-2], row[-1]) for row in rows}


def refused(cluster, *arguments):
    with pytest.raises(CommandFailed) as caught:
        cluster.edgekube("images", *arguments)
    return str(caught.value)


def test_import_of_a_folder_with_every_kind_of_archive(space, tmp_path):
    layout = Layout()
    layout.add(
        layout.index({"arm64": layout.image(architecture="arm64"), "amd64": layout.image(architecture="amd64", mark="m")}), ref="multi:v1"
    )
    layout.add(layout.image(architecture="amd64", mark="n"), containerd="example.org/second:v1", ref="v1")
    layout.write(tmp_path / "multi.tar")
    subprocess.run(["zstd", "-q", "--rm", str(tmp_path / "multi.tar")], check=True)
    archive(tmp_path / "plain.tar", tags=("example.org/plain:v1", "example.org/plain:v2"), files={"a": b"plain"})
    subprocess.run(["gzip", str(tmp_path / "plain.tar")], check=True)
    said = space.cluster.edgekube("images", "import", str(tmp_path))
    names = {"docker.io/library/multi:v1", "example.org/second:v1", "example.org/plain:v1", "example.org/plain:v2"}
    assert {line.removeprefix("imported ") for line in said.splitlines()} == names
    assert {name: listed(space.cluster)[name] for name in names} == dict.fromkeys(names, ("pinned", "no"))
    space.apply(pod("multi", "multi:v1"))
    wait_until(lambda: running(space, "multi"))
    assert listed(space.cluster)["docker.io/library/multi:v1"] == ("pinned", "yes")


def test_from_a_pipe_from_a_layout_in_a_folder_and_from_plain_files(space, tmp_path):
    cluster = space.cluster
    archive(tmp_path / "pipe.tar", tags=("example.org/pipe:v1",), files={"a": b"pipe"})
    with (tmp_path / "pipe.tar").open("rb") as file:
        done = subprocess.run(cluster.argv("images", "import", "-"), stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == "imported example.org/pipe:v1\n"
    layout = Layout()
    layout.add(layout.image(architecture="amd64", mark="layout"), ref="example.org/layout:v1")
    assert cluster.edgekube("images", "import", str(layout.write_folder(tmp_path / "layout"))) == "imported example.org/layout:v1\n"
    subprocess.run(["tar", "-czf", str(tmp_path / "files.tgz"), "-C", "/etc", "hostname"], check=True)
    said = cluster.edgekube("images", "import", "--rootfs=example.org/files:v1", str(tmp_path / "files.tgz"))
    assert said == "imported example.org/files:v1\n"
    names = [f"example.org/{name}:v1" for name in ("pipe", "layout", "files")]
    assert [listed(cluster)[name] for name in names] == [("pinned", "no")] * 3
    cluster.edgekube("images", "rm", "--force", *names)
    assert not listed(cluster).keys() & set(names)


def test_an_archive_for_other_machines_is_refused_in_words(space, tmp_path):
    layout = Layout()
    layout.add(layout.index({"s390x": layout.image(architecture="s390x")}), ref="foreign:v1")
    said = refused(space.cluster, "import", str(layout.write(tmp_path / "foreign.tar")))
    assert "has no image for this machine, which is linux/amd64: it has docker.io/library/foreign:v1 for linux/s390x" in said


def test_pinned_and_used_images_are_removed_by_force_only(space, tmp_path):
    archive(tmp_path / "tool.tar", tags=("example.org/tool:v1",), files={"a": b"tool"})
    space.cluster.edgekube("images", "import", str(tmp_path / "tool.tar"))
    assert "example.org/tool:v1 is pinned (pinned): unpin it first" in refused(space.cluster, "rm", "example.org/tool:v1")
    space.cluster.edgekube("images", "unpin", "example.org/tool:v1")
    space.apply(pod("tool", "example.org/tool:v1"))
    wait_until(lambda: running(space, "tool"))
    assert "is in use by a container" in refused(space.cluster, "rm", "example.org/tool:v1")
    space.cluster.edgekube("images", "rm", "--force", "example.org/tool:v1")
    assert "example.org/tool:v1" not in listed(space.cluster)
    assert running(space, "tool")
    assert "there is no image nosuch:v1" in refused(space.cluster, "rm", "nosuch:v1")


def test_an_import_ends_the_wait_of_a_pod_at_once(space, tmp_path):
    """Not when its back-off is over, which grows to five minutes."""
    archive(tmp_path / "late.tar", tags=("example.org/late:v1",), files={"a": b"late"})
    space.apply(pod("late", "example.org/late:v1"))
    wait_until(lambda: "ImagePullBackOff" in json.dumps(space.get("pod", "late")["status"]))
    space.cluster.edgekube("images", "import", "--no-pin", str(tmp_path / "late.tar"))
    wait_until(lambda: running(space, "late"), seconds=5)


def test_a_file_in_the_folder_wakes_the_pod_that_waits_for_it(space, tmp_path):
    cluster = space.cluster
    space.apply(pod("dropped", "example.org/dropped:v1", policy="Never"))
    wait_until(lambda: "ErrImageNeverPull" in json.dumps(space.get("pod", "dropped")["status"]))
    archive(tmp_path / "dropped.tar", tags=("example.org/dropped:v1",), files={"a": b"dropped"})
    target = cluster.data / "images" / "dropped.tar"
    whole = (tmp_path / "dropped.tar").read_bytes()
    with target.open("wb") as file:  # a slow copy
        file.write(whole[: len(whole) // 2])
        file.flush()
        file.write(whole[len(whole) // 2 :])
    wait_until(lambda: running(space, "dropped"), seconds=15)
    assert listed(cluster)["example.org/dropped:v1"] == ("images/dropped.tar", "yes")
    target.unlink()
    wait_until(lambda: listed(cluster)["example.org/dropped:v1"] == ("no", "yes"))


def test_a_broken_file_in_the_folder_is_an_event(space):
    target = space.cluster.data / "images" / "bad.tar"
    target.write_bytes(b"nothing of an archive" * 1000)
    try:
        found = wait_until(
            lambda: space.cluster.kubectl("get", "events", "--field-selector=reason=ImageArchiveRefused", "-o=jsonpath={..message}")
        )
        assert "images/bad.tar" in found
    finally:
        target.unlink()


@pytest.fixture
def own(tmp_path):
    registries = f"--private-registry={tmp_path}/registries.yaml"
    with cluster(
        registries, "--image-gc-high-threshold=2", "--image-gc-low-threshold=1", "--minimum-image-ttl-seconds=0", start=False
    ) as found:
        yield found


def test_before_the_first_start_and_over_restarts_and_under_a_full_disk(own, tmp_path):
    """One story: imported while nothing runs; the folder is taken in at the start and never again; then the disk is 'full'."""
    for name in ("pinned", "folder", "used", "idle"):
        archive(tmp_path / f"{name}.tar", tags=(f"example.org/{name}:v1",), files={"a": name.encode()})
    own.edgekube("images", "import", str(tmp_path / "pinned.tar"), str(tmp_path / "used.tar"))
    own.edgekube("images", "import", "--no-pin", str(tmp_path / "idle.tar"))
    assert set(listed(own)) == {f"example.org/{name}:v1" for name in ("pinned", "used", "idle")}
    (own.data / "images").mkdir(exist_ok=True)
    (tmp_path / "folder.tar").rename(own.data / "images" / "folder.tar")
    own.start()
    own.apply(pod("used", "example.org/used:v1"))
    wait_until(lambda: own.get("pod", "used")["status"].get("phase") == "Running")
    wait_until(lambda: "example.org/idle:v1" not in listed(own), seconds=60, what="the idle image is collected")
    wait_until(lambda: "example.org/folder:v1" in listed(own))
    assert listed(own) == {
        "example.org/pinned:v1": ("pinned", "no"),
        "example.org/folder:v1": ("images/folder.tar", "no"),
        "example.org/used:v1": ("pinned", "yes"),
    }
    assert "only found" in wait_until(
        lambda: own.kubectl("get", "events", "--field-selector=reason=FreeDiskSpaceFailed", "-o=jsonpath={..message}")
    )
    (tmp_path / "registries.yaml").write_text('mirrors: {docker.io: {endpoint: ["http://127.0.0.1:1"], rewrite: {"^library/": "hub/"}}}')
    own.kubectl("run", "mirrored", "--image=nosuch:v1", "--restart=Never")
    failed = 'Failed to pull image "nosuch:v1": failed to pull image "docker.io/library/nosuch:v1": tried 2 endpoints: '
    wait_until(lambda: f"{failed}127.0.0.1:1/hub/nosuch:v1: can not be reached" in own.kubectl("get", "events", "-o=jsonpath={..message}"))
    own.kubectl("delete", "pod", "mirrored")
    loads = own.log_text().count("image loaded")
    own.stop()
    own.start()
    (own.data / "images" / "bad.tar").write_bytes(b"x" * 4096)
    wait_until(lambda: "image archive refused" in own.log_text())  # so it has been through the whole folder
    assert own.log_text().count("image loaded") == loads
