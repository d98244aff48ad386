"""A second machine is a node like the first: pods run there, and everything that kubectl does with a pod works."""

from pathlib import Path

from edgekube.config import Settings
from tests.e2e.manifests import pod
from tests.kit import images
from tests.kit.machine import CommandFailed
from tests.kit.nodes import RUN, fleet, wait_until
from tests.kit.processes import command_lines
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


def on(node, name, command="sleep 3600", **more):
    return pod(name, command, spec=f"nodeName: {node}", **more)


def works(f, *arguments):
    try:
        f.kubectl(*arguments)
    except CommandFailed:
        return False
    return True


def test_roles(shared):
    labels = {node["metadata"]["name"]: node["metadata"]["labels"] for node in shared.get("nodes")["items"]}
    roles = {name: "node-role.kubernetes.io/control-plane" in found for name, found in labels.items()}
    assert roles == {"server": True, "agent-1": False}


def test_a_pod_on_the_agent(shared, space):
    shared.apply(on("agent-1", "web", "echo hello; sleep 3600"), "-n", space)
    shared.kubectl("wait", "-n", space, "--for=condition=Ready", "pod/web", "--timeout=30s")
    assert shared.kubectl("logs", "-n", space, "web") == "hello\n"
    assert shared.kubectl("exec", "-n", space, "web", "--", "hostname").strip() == "web"
    assert shared.get("pod", "-n", space, "web")["status"]["hostIP"] == shared.net.address(shared.agents[0].machine)


def test_services_and_names_from_the_agent(shared, space):
    shared.apply(on("agent-1", "client"), "-n", space)
    shared.kubectl("wait", "-n", space, "--for=condition=Ready", "pod/client", "--timeout=30s")
    found = shared.kubectl("exec", "-n", space, "client", "--", "nslookup", "-type=a", "kubernetes.default.svc.cluster.local")
    assert "Address: 10.43.0.1" in found
    shared.kubectl("exec", "-n", space, "client", "--", "nc", "-w", "3", "10.43.0.1", "443")


def test_kubectl_from_any_machine(shared):
    assert "agent-1" in shared.kubectl("get", "nodes", on=shared.agents[0])


def test_one_data_directory_is_of_one_kind(shared):
    for node, wrong, right in ((shared.agents[0], "server", "an agent"), (shared.server, "agent", "a server")):
        argv = node.argv(wrong, "--run-dir=/run/other", "--https-port=6555", "--kubelet-port=6556")
        assert f"{node.data} belongs to {right}: start it with edgekube" in node.machine.sh(f"{' '.join(argv)} 2>&1", check=False)


def test_status_of_an_agent(shared):
    agent = shared.agents[0]
    said = agent.edgekube("status", "--node")
    assert f"ready: yes\nnode: agent-1\nserver: {shared.url}\nnode agent-1 is ready" in said
    shared.net.unplug(agent.machine)
    try:
        said = agent.edgekube("status", check=False)
    finally:
        shared.net.plug(agent.machine)
    assert "ready: no\nnode: agent-1\nno server answers: https://10.99.0.10:6443: " in said
    assert "its pods keep running" in said
    assert "belongs to" not in agent.edgekube("check")
    assert f"FAIL  {agent.data} belongs to an agent" in agent.edgekube("check", "--as=server", check=False)


def test_killed_and_started_again_the_agent_keeps_its_pods(shared, space):
    shared.apply(on("agent-1", "stays"), "-n", space)
    shared.kubectl("wait", "-n", space, "--for=condition=Ready", "pod/stays", "--timeout=30s")
    before = shared.get("pod", "-n", space, "stays")["status"]["containerStatuses"][0]
    shared.agents[0].kill()
    shared.agents[0].start()
    wait_until(lambda: works(shared, "exec", "-n", space, "stays", "--", "true"))
    after = shared.get("pod", "-n", space, "stays")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def picture(node):
    """Everything of a machine that a node touches."""
    own = Settings(data_dir=node.data, run_dir=RUN).instance
    return {
        "network": node.machine.sh("ip -o -4 addr; ip -o link | cut -d: -f2; ip route; nft list ruleset"),
        "run": node.machine.sh(f"ls {RUN}", check=False),
        "mounts": node.machine.sh("grep -c edgekube /proc/mounts", check=False),
        "processes": [args for _, args in command_lines() if str(node.data) in args],
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/kubepods*{own}*") if path.is_dir()),
    }


def test_uninstalling_an_agent_leaves_nothing():
    with fleet(agents=0) as f:
        agent = f.add(f.net.machine("agent-1", f.lan), start=False)
        before = picture(agent)
        agent.start(f"--token={f.token()}")
        f.import_image(images.archive(f.net.base / "busybox.tar"))
        f.apply(on("agent-1", "web"))
        f.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
        running = picture(agent)
        assert all(running[part] != before[part] for part in before)
        agent.uninstall()
        assert picture(agent) == before
        assert not agent.data.exists()
