"""The manifests folder of a real server: after each change of files the cluster equals the folder. Out: parsing and planning (unit)."""

import shutil

import pytest

from tests.kit.cluster import cluster, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "netns", "kubectl")


def config_map(name, value="1", namespace="default", extra=""):
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}{extra}}}\ndata: {{value: '{value}'}}\n"


NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n"


class Folder:
    """The folder and the server behind it."""

    def __init__(self, server):
        self.server, self.root = server, server.data / "manifests"

    def write(self, name, *documents):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("---\n".join(documents))
        return path

    def values(self, namespace="default"):
        found = self.server.get("configmaps", "-n", namespace, "-l", "edgekube.io/manifests")["items"]
        return {one["metadata"]["name"]: one["data"]["value"] for one in found}

    def becomes(self, namespace="default", **values):
        wait_until(lambda: self.values(namespace) == values, seconds=6, what=f"{values}, it is {self.values(namespace)}")

    def told(self, *words):
        def found():
            text = self.server.kubectl(
                "get", "events", "-n", "kube-system", "-o=jsonpath={range .items[*]}{.reason}: {.message}{'\\n'}{end}"
            )
            return [line for line in text.splitlines() if all(word in line for word in words)]

        return wait_until(found, seconds=8, what=f"an event with {words}")


@pytest.fixture(scope="module")
def server():
    with cluster("--disable-agent") as found:
        yield found


@pytest.fixture
def folder(server):
    found = Folder(server)
    yield found
    if not server.process:
        server.start()
    for path in found.root.iterdir() if found.root.exists() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found.becomes()


def test_added_edited_split_renamed_and_deleted(folder):
    folder.write("app.yaml", config_map("a"), config_map("b"))
    folder.becomes(a="1", b="1")
    uid = folder.server.get("configmap", "b")["metadata"]["uid"]
    folder.write("app.yaml", config_map("a", "2"), config_map("b"))
    folder.becomes(a="2", b="1")
    folder.write("app.yaml", config_map("a", "2"))
    folder.write("sub/deep/b.yml", config_map("b", "3"))
    folder.becomes(a="2", b="3")
    (folder.root / "sub").rename(folder.root / "moved")
    folder.write("c.json", '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"value":"9"}}')
    folder.becomes(a="2", b="3", c="9")
    live = folder.server.get("configmap", "b")["metadata"]
    assert (live["uid"], live["annotations"]["edgekube.io/manifest-file"]) == (uid, "moved/deep/b.yml")
    (folder.root / "app.yaml").unlink()
    folder.becomes(b="3", c="9")


def test_what_goes_while_the_server_is_down_is_pruned_and_edits_of_others_are_put_back(folder):
    folder.write("a.yaml", config_map("a"))
    folder.write("b.yaml", config_map("b"))
    folder.becomes(a="1", b="1")
    folder.server.kubectl("patch", "configmap", "b", "-p", '{"data":{"value":"edited","other":"theirs"}}')
    folder.server.stop()
    (folder.root / "a.yaml").unlink()
    folder.server.start()
    folder.becomes(b="1")
    assert folder.server.get("configmap", "b")["data"] == {"value": "1", "other": "theirs"}


def test_a_broken_file_changes_nothing_and_is_an_event(folder):
    folder.write("a.yaml", config_map("a"), config_map("b"))
    folder.becomes(a="1", b="1")
    folder.write("a.yaml", config_map("a", "2"), "kind: [")
    folder.told("ManifestRefused: a.yaml: it is not YAML")
    folder.write("a.yaml", config_map("a", "2"), config_map("b", extra=", lables: {x: y}"))
    folder.told("ManifestRefused: a.yaml", 'unknown field "metadata.lables"')
    folder.write("a.yaml", config_map("a", "2"), config_map("Not_A_Name"))
    folder.told("ManifestRefused: a.yaml: ConfigMap default/Not_A_Name", "Invalid value")
    folder.write("a.yaml")
    folder.told("ManifestRefused: a.yaml: the file is empty")
    assert folder.values() == {"a": "1", "b": "1"}
    folder.write("other.yaml", config_map("c"))
    folder.becomes(a="1", b="1", c="1")
    folder.write("a.yaml", config_map("a", "3"))
    folder.becomes(a="3", c="1")


def test_of_two_files_the_first_keeps_the_object(folder):
    folder.write("z.yaml", config_map("a", "first"))
    folder.becomes(a="first")
    folder.write("b.yaml", config_map("a", "second"))
    folder.told("ManifestRefused: b.yaml: ConfigMap default/a is declared by z.yaml already")
    assert folder.values() == {"a": "first"}
    (folder.root / "z.yaml").unlink()
    folder.becomes(a="second")


def test_kinds_and_namespaces_that_are_not_there_yet_are_waited_for(folder):
    unknown = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\n"
    folder.write("a.yaml", config_map("far", namespace="later"), unknown, config_map("near"))
    folder.becomes(near="1")
    folder.told('no matches for kind "Widget" in version "example.org/v1"', 'namespaces "later" not found')
    folder.write("ns.yaml", NAMESPACE.format("later"))
    folder.becomes("later", far="1")
    (folder.root / "ns.yaml").unlink()
    (folder.root / "a.yaml").unlink()
    wait_until(lambda: "later" not in folder.server.kubectl("get", "ns"), seconds=10)


def test_a_namespace_with_something_of_others_and_what_lost_its_label_stay(folder):
    folder.write("ns.yaml", NAMESPACE.format("shared"), config_map("mine", namespace="shared"), config_map("taken"))
    folder.becomes("shared", mine="1")
    folder.server.kubectl("create", "configmap", "theirs", "-n", "shared")
    folder.server.kubectl("label", "configmap", "taken", "edgekube.io/manifests-")
    (folder.root / "ns.yaml").unlink()
    folder.told("ManifestPruneSkipped: Namespace shared", "it still holds ConfigMap theirs")
    folder.told("ManifestPruneSkipped: ConfigMap default/taken")
    assert folder.values("shared") == {}
    folder.server.kubectl("delete", "ns", "shared", "--wait=false")
    folder.server.kubectl("delete", "configmap", "taken")


def test_a_folder_that_vanishes_takes_nothing_along(folder):
    folder.write("a.yaml", config_map("a"))
    folder.becomes(a="1")
    folder.root.rename(folder.root.with_name("aside"))
    folder.told("can not be read: nothing is changed until it can")
    folder.server.stop()
    folder.server.start()
    assert folder.values() == {"a": "1"}
    folder.root.with_name("aside").rename(folder.root)
    folder.server.stop()
    folder.server.start()
    folder.write("b.yaml", config_map("b"))
    folder.becomes(a="1", b="1")


def test_a_half_written_file_waits_and_idle_is_silent(folder):
    path = folder.root / "slow.yaml"
    with path.open("w") as file:
        file.write(config_map("a") + "---\n")
        file.flush()
        folder.write("b.yaml", config_map("b"))
        folder.becomes(b="1")
        file.write(config_map("c"))
    folder.becomes(a="1", b="1", c="1")
    before = folder.server.get("configmap", "a")["metadata"]["resourceVersion"]
    (folder.root / "b.yaml").touch()
    folder.write("notes.txt", "nothing")
    folder.write("d.yaml", config_map("d"))
    folder.becomes(a="1", b="1", c="1", d="1")
    assert folder.server.get("configmap", "a")["metadata"]["resourceVersion"] == before
