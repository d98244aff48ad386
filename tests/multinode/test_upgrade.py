"""An agent gets another version: one that works, one that does not, and one that it must judge while its server is away."""

import signal
import subprocess

from tests.e2e.manifests import pod
from tests.kit.installed import make_version
from tests.kit.nodes import Agent, fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


class InstalledAgent(Agent):
    """An agent that was started as BASE/bin/edgekube agent."""

    @property
    def file(self):
        return self.machine.base / "bin" / "edgekube"

    def argv(self, command, *more):
        return [str(self.file), *super().argv(command, *more)[3:]]

    def install(self):
        self.file.parent.mkdir()
        make_version(self.machine.base, "0.1.0").rename(self.file)

    def upgrade(self, file, *more):
        """(exit code, what it said)."""
        argv = self.machine.enter(*self.argv("upgrade", str(file), f"--program={self.file}", *more))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
        return done.returncode, done.stdout + done.stderr


def version(f):
    return f.get("node", "agent-1")["status"]["nodeInfo"]["kubeletVersion"]


def container(f):
    status = f.get("pod", "stays", "-n", "default")["status"]["containerStatuses"][0]
    return status["containerID"], status["restartCount"]


def test_an_agent():
    with fleet(agents=0) as f:
        agent = InstalledAgent(f.machine("agent-1"), [f"--server={f.url}"])
        agent.install()
        f.agents.append(agent)
        agent.start(f"--token={f.token()}")
        agent.edgekube("images", "import", str(f.net.base / "busybox.tar"))
        f.ready()
        f.apply(pod("stays", "sleep 3600", spec="nodeName: agent-1"))
        f.kubectl("wait", "-n", "default", "--for=condition=Ready", "pod/stays", "--timeout=60s")
        before = container(f)

        code, said = agent.upgrade(make_version(agent.machine.base, "0.2.0"))
        assert code == 0, said
        assert "0.2.0 is ready" in said
        assert version(f).endswith("+edgekube0.2.0")

        broken = make_version(agent.machine.base, "0.9.0", f"rm -rf {agent.data}/agent; echo boom; exit 4")
        code, said = agent.upgrade(broken)
        assert code == 1, said
        assert "0.9.0 was taken back: it ended with exit code 4: boom" in said
        assert "0.2.0 is ready again" in said
        assert version(f).endswith("+edgekube0.2.0")

        f.server.kill()
        code, said = agent.upgrade(make_version(agent.machine.base, "0.3.0"))
        assert code == 0, said
        f.server.start()
        wait_until(lambda: version(f).endswith("+edgekube0.3.0"), seconds=60, what="the node says its new version")
        f.ready()
        assert container(f) == before
        agent.machine.sh(f"kill -{signal.SIGTERM.value} $(cat /run/edgekube/edgekube.pid)")
