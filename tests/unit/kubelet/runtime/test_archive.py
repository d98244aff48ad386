"""Which image of an archive is for this machine, and what podman is given. In: every layout that users bring. Out: podman itself."""

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from edgekube.kubelet.runtime import archive
from edgekube.kubelet.runtime.archive import ArchiveError, Platform, look, plan, rank, repacked
from tests.kit import images
from tests.kit.archives import Layout

AMD64, ARM64, PI = Platform("amd64"), Platform("arm64", "v8"), Platform("arm", "v7")


@pytest.mark.parametrize(
    ("machine", "image", "fits"),
    [
        (AMD64, Platform("amd64"), True),
        (AMD64, Platform("amd64", "v2"), True),
        (AMD64, Platform("arm64"), False),
        (AMD64, Platform("amd64", os="windows"), False),
        (ARM64, Platform("arm64", "v8"), True),
        (ARM64, Platform("arm64"), True),
        (PI, Platform("arm", "v6"), True),
        (Platform("arm", "v6"), Platform("arm", "v7"), False),
    ],
)
def test_what_runs_where(machine, image, fits):
    assert (rank(machine, image) >= 0) == fits


def test_of_several_variants_the_best_is_taken():
    assert rank(PI, Platform("arm", "v7")) > rank(PI, Platform("arm", "v6")) > rank(PI, Platform("arm", "v5"))


def test_of_an_index_only_this_machines_image_is_loaded():
    layout = Layout()
    arm, ours = layout.image(architecture="arm64"), layout.image(architecture="amd64")
    layout.add(layout.index({"arm64/v8": arm, "amd64": ours}), ref="example.org/app:v1")
    found = plan(layout.documents(), AMD64, "app.tar")
    assert [(one.names, one.descriptor["digest"]) for one in found.loads] == [(("example.org/app:v1",), ours["digest"])]
    assert not found.whole


def test_what_is_not_for_this_machine_is_named():
    layout = Layout()
    layout.add(layout.index({"arm64/v8": layout.image(architecture="arm64"), "arm/v7": layout.image(architecture="arm")}), ref="app:v1")
    with pytest.raises(ArchiveError) as caught:
        plan(layout.documents(), AMD64, "app.tar")
    expected = (
        "app.tar has no image for this machine, which is linux/amd64: it has docker.io/library/app:v1 for linux/arm64/v8, linux/arm/v7"
    )
    assert str(caught.value) == expected


def test_a_single_image_for_another_machine_is_refused_in_both_formats():
    layout = Layout()
    layout.add(layout.image(architecture="riscv64"), ref="app:v1")
    with pytest.raises(ArchiveError, match="linux/riscv64"):
        plan(layout.documents(), AMD64, "app.tar")
    documents = {
        "c.json": b'{"architecture":"s390x","os":"linux"}',
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["app:v1"]}]).encode(),
    }
    with pytest.raises(ArchiveError, match=r"app:v1 for linux/s390x"):
        plan(documents, AMD64, "app.tar")


def test_several_images_each_under_its_own_name_and_one_image_once_with_all_of_its():
    layout = Layout()
    one, two = layout.image(architecture="amd64", mark="1"), layout.image(architecture="amd64", mark="2")
    layout.add(one, ref="a:v1")
    layout.add(one, ref="a:latest")
    layout.add(two, containerd="example.org/b:v1", ref="v1")
    found = plan(layout.documents(), AMD64, "app.tar")
    assert [load.names for load in found.loads] == [
        ("docker.io/library/a:v1", "docker.io/library/a:latest"),
        ("example.org/b:v1",),
    ]


def test_what_podman_reads_by_itself_goes_to_it_whole(tmp_path):
    assert look(images.archive(tmp_path / "d.tar"), archive.this_machine()).whole
    assert look(images.oci_archive(tmp_path / "o.tar"), archive.this_machine()).whole


@pytest.mark.parametrize("packed", ["", "gz", "zst", "xz"])
def test_repacked_it_has_that_image_and_nothing_else(tmp_path: Path, packed):
    layout = Layout()
    arm, ours = layout.image(architecture="arm64", mark="x"), layout.image(architecture="amd64", mark="y")
    layout.add(layout.index({"arm64": arm, "amd64": ours}), ref="example.org/app:v1")
    path = layout.write(tmp_path / "app.tar")
    if packed:
        program = {"gz": "gzip", "zst": "zstd", "xz": "xz"}[packed]
        subprocess.run([program, "-qkf", str(path)], check=True)
        path = path.with_name(f"app.tar.{packed}")
    load = look(path, AMD64).loads[0]
    with tarfile.open(fileobj=io.BytesIO(b"".join(repacked(path, load)))) as tar:
        assert set(tar.getnames()) == {"oci-layout", "index.json", *load.blobs}
        index = json.loads(tar.extractfile("index.json").read())
    assert index["manifests"][0]["digest"] == ours["digest"]
    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "example.org/app:v1"}


def test_a_layout_in_a_folder(tmp_path: Path):
    layout = Layout()
    layout.add(layout.image(architecture="amd64"), ref="example.org/app:v1")
    folder = layout.write_folder(tmp_path / "app")
    load = look(folder, AMD64).loads[0]
    assert load.names == ("example.org/app:v1",)
    assert len(b"".join(repacked(folder, load))) > 500_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "can not be read"),
        (b"not a tar at all" * 100, "can not be read"),
        (gzip.compress(b"x" * 100_000)[:50], "can not be read"),
        (b"\x28\xb5\x2f\xfd" + b"damaged" * 10, "can not be read: the compressed data is damaged"),
    ],
)
def test_damaged_files_say_so(tmp_path: Path, data, message):
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=message):
        look(path, AMD64)


@pytest.mark.parametrize("program", ["gzip", "zstd", "xz", "bzip2"])
def test_bits_that_have_flipped(tmp_path: Path, program):
    path = images.oci_archive(tmp_path / "o.tar")
    packed = bytearray(subprocess.run([program, "-c", str(path)], check=True, capture_output=True).stdout)
    for at in range(len(packed) // 4, len(packed), len(packed) // 4):
        packed[at] ^= 0xFF
    path.write_bytes(packed)
    with pytest.raises(ArchiveError):
        look(path, archive.this_machine())


def test_half_an_archive_is_refused(tmp_path: Path):
    whole = images.oci_archive(tmp_path / "o.tar").read_bytes()
    (tmp_path / "half.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError):
        look(tmp_path / "half.tar", archive.this_machine())


def test_a_blob_that_is_missing_is_told_before_podman_gets_an_end(tmp_path: Path):
    layout = Layout()
    layout.add(layout.index({"amd64": layout.image(architecture="amd64")}), ref="example.org/app:v1")
    layer = max(layout.blobs, key=lambda name: len(layout.blobs[name]))
    del layout.blobs[layer]
    path = layout.write(tmp_path / "app.tar")
    with pytest.raises(ArchiveError, match="is not complete"):
        b"".join(repacked(path, look(path, AMD64).loads[0]))


def test_plain_files_are_no_image(tmp_path: Path):
    with tarfile.open(tmp_path / "etc.tar", "w") as tar:
        tar.add("/etc/hostname")
    with pytest.raises(ArchiveError, match="no image archive"):
        look(tmp_path / "etc.tar", AMD64)
