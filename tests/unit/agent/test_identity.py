"""The folder that makes a machine a node: what is written is read again, and damage is named."""

import pytest

from edgekube.agent.identity import Identity, joined, load, save
from edgekube.agent.refusal import IdentityDamaged


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
    for path in (found.ca, found.key, found.client, found.serving):
        assert not joined(found)
        path.touch()
    assert joined(found)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "x"}', '{"name": "x", "servers": 3}'])
def test_damage_is_named(tmp_path, text):
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(IdentityDamaged, match=r"node\.json is damaged"):
        load(tmp_path)
