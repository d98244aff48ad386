"""The folder that makes a machine a node: what is written is read again, and damage is named."""

import pytest

from edgekube.agent.identity import Identity, examine_key, joined, load, save
from edgekube.agent.refusal import IdentityDamaged
from edgekube.lib import pki
from edgekube.lib.clock import SystemClock
from edgekube.lib.pki import Subject


def test_nothing_yet(tmp_path):
    assert load(tmp_path) is None


def test_what_is_saved_is_loaded(tmp_path):
    found = Identity(tmp_path, "shed", ("https://a:6443", "https://b:6443"))
    assert save(found)
    assert not save(found)
    assert load(tmp_path) == found
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600


def test_a_node_has_joined_when_all_is_there(tmp_path):
    found = Identity(tmp_path, "shed", ())
    authority = pki.create_authority("ca", SystemClock().now())
    for path in (found.ca, found.key, found.serving):
        assert not joined(found)
        path.write_bytes(pki.certificate_pem(authority))
    assert joined(found)
    found.ca.write_bytes(b"")
    assert not joined(found)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "x"}', '{"name": "x", "servers": 3}'])
def test_damage_is_named(tmp_path, text):
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(IdentityDamaged, match=r"node\.json is damaged"):
        load(tmp_path)


@pytest.fixture
def node(tmp_path):
    found, now = Identity(tmp_path, "shed", ()), SystemClock().now()
    pair = pki.issue(pki.create_authority("ca", now), Subject("system:node:shed", server=True), now)
    certificate = pki.certificate_pem(pair)
    pki.write_secret(found.key, pair.replace(certificate, b""))
    for path in (found.client, found.serving):
        path.write_bytes(certificate)
    return found


@pytest.mark.parametrize("lost", [(), ("client.crt",), ("serving.crt",), ("client.crt", "serving.crt")])
def test_certificates_come_and_go_with_a_key_that_is_whole(node, lost):
    for name in lost:
        (node.folder / name).write_bytes(b"")
    examine_key(node)


@pytest.mark.parametrize("content", [b"", b"\xa9garbage", None])
def test_a_key_that_is_not_whole_is_named_with_what_to_do(node, content):
    if content is None:
        node.key.unlink()
    else:
        node.key.write_bytes(content)
    with pytest.raises(IdentityDamaged, match=r"node\.key is (gone|damaged \(.+\)): run edgekube uninstall, .* --node-name shed$"):
        examine_key(node)
