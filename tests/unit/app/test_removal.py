"""Whose logs uninstall takes away: those of pods in the state and those that links of ours lead to, never a neighbour's."""

from dataclasses import dataclass
from pathlib import Path

import orjson

from edgekube.app.paths import Paths
from edgekube.app.removal import known_pods, remove_logs
from edgekube.store.sqlite import open_store


@dataclass(frozen=True)
class Here(Paths):
    """Logs beside the test instead of below /var/log."""

    root: Path = Path("/nonexistent")

    @property
    def pod_logs(self):
        return self.root / "pods"

    @property
    def container_links(self):
        return self.root / "containers"


async def test_pods_are_read_from_the_state(tmp_path):
    path = tmp_path / "state.db"
    store = await open_store(path)
    value = orjson.dumps({"metadata": {"uid": "u1"}})
    await store.create("pods/default/web", lambda _revision: (value, None))
    await store.close()
    assert await known_pods(path) == ["u1"]


async def test_a_broken_state_knows_no_pods(tmp_path):
    (tmp_path / "text.db").write_text("not a database, but longer than the sixteen bytes of its header\n" * 100)
    assert list(await known_pods(tmp_path / "text.db")) == []


def test_neighbours_keep_their_logs(tmp_path):
    paths = Here(tmp_path / "data", tmp_path / "run", root=tmp_path)
    for name in ("default_done_u1", "default_linked_u2", "other_pod_u3"):
        (paths.pod_logs / name / "app").mkdir(parents=True)
        (paths.pod_logs / name / "app" / "0.log").write_text("")
    paths.container_links.mkdir()
    (paths.container_links / "linked.log").symlink_to(paths.pod_logs / "default_linked_u2" / "app" / "0.log")
    remove_logs(paths, ["u1"])
    assert [path.name for path in paths.pod_logs.iterdir()] == ["other_pod_u3"]
    assert not paths.container_links.exists()
