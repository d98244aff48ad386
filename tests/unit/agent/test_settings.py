"""The copy of the cluster's settings: whole or absent, and told only when it changes."""

import asyncio
import contextlib

import pytest

from edgekube.agent import settings as cluster
from edgekube.api.catalog import CONFIG_MAP
from edgekube.config import Settings, shared, with_shared
from tests.kit.apiserver import live_server
from tests.kit.until import until


def test_the_copy(tmp_path):
    assert cluster.load(tmp_path) is None
    assert cluster.save(tmp_path, {"a": "1"})
    assert not cluster.save(tmp_path, {"a": "1"})
    assert cluster.load(tmp_path) == {"a": "1"}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}'])
def test_a_damaged_copy_is_none(tmp_path, text):
    (tmp_path / cluster.FILE).write_text(text)
    assert cluster.load(tmp_path) is None


def test_settings_survive_the_journey():
    server = Settings(cluster_domain="shed.local", cluster_cidr="10.1.0.0/16")
    found = with_shared(Settings(node_name="agent", kubelet_port=1), {**shared(server), "of-a-newer-server": "x"})
    assert shared(found) == shared(server)
    assert (found.node_name, found.kubelet_port) == ("agent", 1)


async def test_changes_are_told_once(tmp_path):
    async with live_server() as live:
        place = {"name": cluster.NAME, "namespace": cluster.NAMESPACE}
        with contextlib.suppress(Exception):
            await live.client.delete(CONFIG_MAP, cluster.NAME, cluster.NAMESPACE)
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place, "data": {"a": "1"}}
        created = await live.client.create(CONFIG_MAP, obj)
        assert await cluster.fetch(live.client) == {"a": "1"}
        told = []
        watch = cluster.SettingsWatch(client=live.client, folder=tmp_path, known={"a": "1"}, changed=lambda: told.append(1))
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            task = group.create_task(watch.run(asyncio.Event()))
            changed = await live.client.update(CONFIG_MAP, {**created, "data": {"a": "2"}})
            await until(lambda: told)
            await live.client.update(CONFIG_MAP, {**changed, "metadata": {**changed["metadata"], "labels": {"x": "y"}}})
            await live.client.delete(CONFIG_MAP, cluster.NAME, cluster.NAMESPACE)
            await until(lambda: not list(watch._store))
            task.cancel()
        assert told == [1]
        assert cluster.load(tmp_path) == {"a": "2"}
