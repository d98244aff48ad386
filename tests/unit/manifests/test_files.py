"""Reading manifests: what is in a file, and what is wrong with it. In: parsing and the folder. Out: what follows (test_plan.py)."""

import pytest

from edgekube.manifests.files import Ref, Unreadable, parse, read_folder

CM = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def test_documents_lists_and_defaults():
    text = f"# first\n---\n{CM}---\napiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Namespace, metadata: {{name: n, namespace: x}}}}\n"
    found = parse(text.encode())
    assert list(found) == [Ref("", "ConfigMap", "default", "a"), Ref("", "Namespace", "", "n")]


def test_what_the_server_fills_in_is_left_out():
    found = parse(b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","uid":"u","resourceVersion":"3","managedFields":[]}}')
    assert next(iter(found.values()))["metadata"] == {"name": "a", "namespace": "default"}


def test_unknown_kinds_are_no_fault_of_the_file():
    assert list(parse(b"apiVersion: example.org/v1\nkind: W\nmetadata: {name: w}\nspec: {any: thing}\n")) == [
        Ref("example.org", "W", "", "w")
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "it is not YAML"),
        (f"{CM}data: {{a: 2020-13-45}}\n", "it is not YAML: month must be in 1..12"),
        ("apiVersion: x/v1\nkind: W\nmetadata: {name: w, labels: [1]}\n", "document 1: metadata.labels of W w is no mapping"),
        (f"{CM}data: {{1: x}}\n", "document 1: Dict key must be str"),
        ("- 1", "document 1 is no object"),
        (f"{CM}---\nkind: X\n", "document 2: an object needs apiVersion, kind and metadata"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n", "document 1: ConfigMap has no metadata.name"),
        (f"{CM}---\n{CM}", "document 2: ConfigMap default/a is in the file twice"),
        (f"{CM}dta: {{}}\n", 'unknown field "dta"'),
        (f"{CM}data: [1]\n", "document 1, ConfigMap a: ConfigMap in version"),
    ],
)
def test_what_is_wrong_is_said(text, why):
    with pytest.raises(Unreadable) as caught:
        parse(text.encode())
    assert why in str(caught.value)


def test_the_folder(tmp_path):
    for name in (
        "a.yaml",
        "sub/b.yml",
        "sub/deep/c.json",
        "static/pod.yaml",
        ".git/x.yaml",
        "notes.txt",
        ".a.yaml.swp",
        "sub/static/d.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = read_folder(tmp_path, {})
    assert sorted(found) == ["a.yaml", "sub/b.yml", "sub/deep/c.json", "sub/static/d.yaml"]
    assert read_folder(tmp_path, found)["a.yaml"] is found["a.yaml"]


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_folder(tmp_path / "nosuch", {})
