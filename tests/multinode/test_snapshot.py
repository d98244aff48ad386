"""A snapshot taken with an agent at work, restored where it was and on a blank machine: the agent goes on as if nothing had been."""

from tests.e2e.manifests import pod
from tests.kit.nodes import Node, fleet, wait_until
from tests.kit.processes import command_lines
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


def on(node, name, command):
    return pod(name, command, spec=f"nodeName: {node}")


def container(f, name):
    status = f.get("pod", name, "-n", "default")["status"]["containerStatuses"][0]
    return status["containerID"], status["restartCount"]


def ready(f, *names):
    f.kubectl("wait", "-n", "default", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=60s")


def runs(command):
    return any(command in line for _, line in command_lines())


def test_back_where_it_was_and_on_a_blank_machine():
    with fleet(agents=1) as f:
        agent = f.agents[0]
        f.apply(on("agent-1", "before", "sleep 3601"))
        f.apply(pod("central", "sleep 3602", spec="nodeName: server"))
        ready(f, "before", "central")
        kept = container(f, "before"), container(f, "central")
        said = f.server.edgekube("snapshot", "save", "first")
        assert said.startswith(f"saved {f.server.data}/snapshots/first.snapshot (")
        f.apply(on("agent-1", "after", "sleep 3603"))
        ready(f, "after")

        argv = f.server.argv("snapshot", "restore", "first")
        refused = f.server.machine.sh(f"{' '.join(argv)} 2>&1", check=False)
        assert "edgekube is already running as process" in refused
        f.server.kill()
        assert "the state before it is kept until the next start has succeeded" in f.server.edgekube("snapshot", "restore", "first")
        f.server.start()
        _goes_on(f, kept)
        assert not list(f.server.data.glob("*.before-restore-*"))

        credentials = f.server.kubeconfig.read_text()
        file = f.net.base / "carried.snapshot"
        f.server.edgekube("snapshot", "save", str(file))
        f.apply(on("agent-1", "after", "sleep 3603"))
        ready(f, "after")
        f.server.power_off()
        f.agents.append(f.server)  # to be removed at the end
        other = Node(f.machine("other"), f.server.flags)
        f.server = other
        said = other.edgekube("snapshot", "restore", str(file))
        assert "node server; now start the server" in said
        other.start()
        other.edgekube("images", "import", str(f.net.base / "busybox.tar"))
        assert other.kubeconfig.read_text() == credentials
        _goes_on(f, (kept[0], None))
        wait_until(lambda: f.condition("server") == "True", seconds=60, what="the server's node is Ready on the other machine")
        ready(f, "central")
        assert {node["metadata"]["name"] for node in f.get("nodes")["items"]} == {"server", "agent-1"}
        assert agent.log_text().count("edgekube is ready") == 1
        f.apply(on("agent-1", "new", "sleep 3604"))
        ready(f, "new")


def _goes_on(f, kept):
    """What was there at the snapshot runs as it did; what came later is gone from the API and ends on the agent."""
    assert "after" not in f.kubectl("get", "pods", "-n", "default", "-o", "name")
    wait_until(lambda: not runs("sleep 3603"), seconds=60, what="the pod that the cluster does not know any more ends")
    wait_until(lambda: f.condition("agent-1") == "True", seconds=60, what="the agent is back")
    assert container(f, "before") == kept[0]
    if kept[1]:
        assert container(f, "central") == kept[1]
