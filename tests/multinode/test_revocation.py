"""`edgekube node revoke` against a real agent: cut off at once, its Node gone for good, the others undisturbed."""

import time

import pytest

from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = [needs("netns", "kubectl", "podman"), pytest.mark.slow]


def test_a_revoked_agent_is_out_within_two_seconds_and_stays_out():
    with fleet(2, image=False) as found:
        bad, good = found.agents
        assert found.server.edgekube("node", "list").count("trusted") == 2
        started = time.monotonic()
        assert found.server.edgekube("node", "revoke", bad.name) == f'node "{bad.name}" revoked\n'
        wait_until(lambda: "was revoked" in bad.log_text(), seconds=10, what="the agent knows")
        took = time.monotonic() - started
        names = {node["metadata"]["name"] for node in found.get("nodes")["items"]}
        assert names == {found.server.name, good.name}
        found.kubectl("wait", "--for=condition=Ready", f"node/{good.name}", "--timeout=10s")
        # It tries again, and registers no more.
        tries = bad.log_text().count("was revoked")
        wait_until(lambda: bad.log_text().count("was revoked") > tries or bad.process.poll() is not None, seconds=40, what="another try")
        assert bad.name not in {node["metadata"]["name"] for node in found.get("nodes")["items"]}
        assert took < 4, took  # the command itself starts a Python, which is most of it
