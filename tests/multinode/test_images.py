"""Images without a registry on an agent: its own folder, its Events at the server, its command while it does not run."""

from tests.e2e.manifests import pod
from tests.kit.images import archive
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")


def test_an_agents_folder():
    with fleet(agents=1, image=False) as f:
        agent = f.agents[0]
        f.ready(agent)
        tar = archive(f.net.base / "tool.tar", tags=("example.org/tool:v1",), files={"a": b"tool"})
        tar.rename(agent.data / "images" / "tool.tar")
        f.apply(pod("tool", "sleep 3600", spec="nodeName: agent-1").replace("docker.io/library/busybox:test", "example.org/tool:v1"))
        f.kubectl("wait", "--for=condition=Ready", "pod/tool", "--timeout=30s")
        (agent.data / "images" / "bad.tar").write_bytes(b"nothing" * 1000)
        wait_until(
            lambda: (
                "images/bad.tar" in f.kubectl("get", "events", "--field-selector=involvedObject.name=agent-1", "-o=jsonpath={..message}")
            )
        )
        agent.stop()
        listed = agent.edgekube("images", "list")
        assert "images/tool.tar" in listed, listed
        assert "example.org/tool:v1" in listed
        assert "example.org/tool:v1" not in f.server.edgekube("images", "list")
