"""What commands for a server say on a machine that has none: what this machine is, and where to go."""

import shutil

import pytest

from edgekube.cli import kubeconfig, kubectl, status
from edgekube.cli.localapi import call
from edgekube.cli.main import Failure
from edgekube.config import Settings

AGENT = "this machine is an agent: run this on a server"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return Settings(data_dir=tmp_path / "data", run_dir=tmp_path / "run", write_kubeconfig=tmp_path / "kubeconfig.yaml")


def asks(settings):
    """What each of them says."""
    yield lambda: call(settings, "/api")
    yield lambda: kubeconfig.main(settings, None)
    if shutil.which("kubectl"):
        yield lambda: kubectl.main(settings, ["get", "nodes"])


def test_nothing_has_run_here(settings):
    for ask in asks(settings):
        with pytest.raises(Failure, match="does not exist yet: the server has not run here"):
            ask()


def test_an_agent_is_no_server(settings):
    (settings.data_dir / "agent").mkdir(parents=True)
    for ask in asks(settings):
        with pytest.raises(Failure) as found:
            ask()
        assert str(found.value) == AGENT


def test_an_agent_that_does_not_run(settings):
    (settings.data_dir / "agent").mkdir(parents=True)
    ready, said = status.readiness(settings, node=False)
    assert not ready
    assert said.splitlines()[0] == "edgekube does not run here: start it with edgekube agent"
