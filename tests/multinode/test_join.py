"""How machines become nodes: every way to be refused says why and what to do, and being killed half-way costs nothing."""

import json
import shutil
import time
from datetime import timedelta

import pytest

from edgekube.api import bootstraptokens
from edgekube.lib.clock import parse_rfc3339
from tests.kit.nodes import fleet, wait_until
from tests.kit.requires import needs

pytestmark = needs("root", "podman", "netns", "nft", "busybox", "kubectl")

STEPS = ("join.key", "join.authority", "join.granted", "join.name", "join.client", "join.addresses", "join.serving")


@pytest.fixture(scope="module")
def f():
    with fleet(agents=0, image=False) as found:
        yield found


@pytest.fixture(scope="module")
def stranger(f):
    """A machine that gets in nowhere; nothing may stay of it but its key."""
    return f.add(f.machine("stranger"), start=False)


def names(f):
    return {node["metadata"]["name"] for node in f.get("nodes")["items"]}


def secret_of(f, token):
    return f.get("secret", "-n", "kube-system", "bootstrap-token-" + token.partition("::")[2].partition(".")[0])


def used_by(f, token):
    return bootstraptokens.read(secret_of(f, token)).used_by


def test_no_token(stranger):
    assert stranger.refused() == (
        "this machine has joined no cluster yet: give it a token (--token, --token-file), see edgekube token create"
    )


def test_no_server(f, stranger):
    flags, stranger.flags = stranger.flags, []
    assert stranger.refused(f"--token={f.token()}") == "name the server to join: --server https://HOST:6443"
    stranger.flags = flags


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_token_that_was_not_copied_whole(f, stranger, cut):
    assert stranger.refused(f"--token={f.token()[:cut] or 'x'}") == bootstraptokens.MALFORMED


def test_a_wrong_secret(f, stranger):
    token = f.token()
    line = stranger.refused(f"--token={token[:-16]}{'x' * 16}")
    assert "its secret is wrong" in line


def test_a_token_that_was_deleted(f, stranger):
    token = f.token()
    f.kubectl("delete", "secret", "-n", "kube-system", secret_of(f, token)["metadata"]["name"])
    line = stranger.refused(f"--token={token}")
    assert "is unknown here: it was never made, or was revoked" in line
    assert "edgekube token create" in line


def test_a_token_that_has_expired(f, stranger):
    token = f.token(life=timedelta(seconds=-10))
    assert "expired" in stranger.refused(f"--token={token}")


def test_a_token_that_is_used_up(f, stranger):
    token = f.token(uses=1)
    first = f.add(f.machine("first"), token=token)
    f.ready(first)
    line = stranger.refused(f"--token={token}")
    assert "was good for one machine and is used up" in line
    assert len(used_by(f, token)) == 1


def test_a_token_for_another_name(f, stranger):
    assert "is for node shed only, not for stranger" in stranger.refused(f"--token={f.token(node='shed')}")


def test_a_token_of_another_cluster(f, stranger):
    token = f.token()
    line = stranger.refused(f"--token=EK1{'0' * 64}{token[67:]}")
    assert f"{f.url} is not of the token's cluster" in line
    assert "somebody is in between. Nothing was sent" in line
    assert used_by(f, token) == ()


def test_nobody_there(f, stranger):
    flags, stranger.flags = stranger.flags, ["--server=https://10.99.0.250:6443,https://10.99.0.10:1"]
    line = stranger.refused(f"--token={f.token()}", "--join-timeout=0")
    assert line.startswith("no server can be reached: https://10.99.0.250:6443: ")
    assert "https://10.99.0.10:1: connection refused" in line
    stranger.flags = flags


def test_a_clock_years_ahead(f, stranger):
    offset = stranger.machine.base / "offset"
    offset.write_text(str(5 * 365 * 86400))
    line = stranger.refused(f"--token={f.token()}", f"--test-clock-offset-file={offset}")
    assert line.startswith("the clock of this machine says 203")
    assert "set the clock" in line


def test_nothing_has_stayed_of_whoever_was_refused(f, stranger):
    assert "stranger" not in names(f)
    assert not (stranger.data / "agent" / "node.json").exists()
    f.add(stranger.machine, start=False)
    stranger.start(f"--token={f.token()}")
    f.ready(stranger)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_next_start_goes_on(f, step):
    token = f.token(uses=1)
    agent = f.add(f.machine(step.replace(".", "-")), start=False)
    agent.start(f"--token={token}", env={"EDGEKUBE_FAILPOINTS": f"{step}=kill"}, wait=False)
    assert agent.process.wait() == -9
    agent.start(f"--token={token}")
    f.ready(agent)
    assert len(used_by(f, token)) == 1
    folder = agent.data / "agent"
    assert folder.stat().st_mode & 0o777 == 0o700
    open_files = {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077}
    assert open_files == {"ca.crt"}
    agent.stop()


def test_the_second_start_needs_neither_token_nor_server(f):
    token = f.token(uses=1)
    file = f.net.base / "token"
    file.write_text(token + "\n")
    agent = f.add(f.machine("plain"), start=False)
    agent.start(f"--token-file={file}")
    f.ready(agent)
    agent.stop()
    f.kubectl("delete", "secret", "-n", "kube-system", secret_of(f, token)["metadata"]["name"])
    agent.flags = []
    agent.start()
    agent.says("connected to the server")
    agent.stop()
    agent.start(f"--token-file={file}-gone")  # as the unit of an installation says it
    agent.stop()


def test_one_connection(f):
    agent = f.add(f.machine("single"))
    f.ready(agent)
    f.kubectl("get", "--raw", "/api/v1/nodes/single/proxy/healthz")
    lines = agent.machine.run("ss", "-Htn", "state", "established", "dport", "=", ":6443").splitlines()
    assert len(lines) == 1, lines
    agent.stop()


# names


def wiped(agent):
    agent.kill()
    shutil.rmtree(agent.data)
    return agent


def test_two_machines_of_one_name(f):
    one = f.add(f.machine("pi-1", hostname="raspberrypi"))
    f.ready_by_name("raspberrypi")
    two = f.add(f.machine("pi-2", hostname="raspberrypi", machine_id="abcdef" + "0" * 26))
    f.ready_by_name("raspberrypi-abcdef")
    copy = f.add(f.machine("pi-3", hostname="raspberrypi", machine_id="abcdef" + "0" * 26))  # of pi-2's card, ids and all
    wait_until(lambda: sum(name.startswith("raspberrypi") for name in names(f)) == 3)
    events = f.get("events", "-A", "--field-selector=reason=NameInUse")["items"]
    assert {event["involvedObject"]["name"] for event in events} == {"raspberrypi", "raspberrypi-abcdef"}
    chosen = f.add(f.machine("pi-4"), "--node-name=raspberrypi", start=False)
    line = chosen.refused(f"--token={f.token()}")
    assert "another machine is running as node raspberrypi: take another name" in line
    for agent in (one, two, copy):
        agent.stop()


def test_a_card_that_was_written_anew(f):
    agent = f.add(f.machine("card"))
    f.ready(agent)
    wiped(agent)
    f.lost("card")
    line = agent.refused(f"--token={f.token()}")
    assert "kubectl delete node card" in line
    assert "edgekube token create --node-name card" in line
    agent.start(f"--token={f.token(node='card')}")
    f.ready(agent)
    wiped(agent)
    f.lost("card")
    f.kubectl("delete", "node", "card")
    agent.start(f"--token={f.token()}")
    f.ready(agent)
    agent.stop()


def test_a_machine_that_was_renamed_is_the_same_node(f):
    agent = f.add(f.machine("old-name"))
    f.ready(agent)
    agent.stop()
    agent.machine.run("hostname", "new-name")
    agent.start()
    agent.says("connected to the server")
    assert "new-name" not in names(f)
    assert json.loads((agent.data / "agent" / "node.json").read_text())["name"] == "old-name"
    offset = agent.log.stat().st_size
    agent.stop()
    agent.start("--node-name=other")
    agent.says("this node keeps the name it joined with", offset=offset)
    agent.stop()


def test_a_machine_that_woke_up_in_1970_learns_the_time(f):
    agent = f.add(f.machine("dark"), start=False)
    offset = agent.machine.base / "offset"
    offset.write_text(str(-time.time()))
    agent.start(f"--token={f.token()}", f"--test-clock-offset-file={offset}")
    f.ready(agent)
    file = agent.data / "time-floor"
    assert abs(parse_rfc3339(file.read_text().strip()).timestamp() - time.time()) < 120
    agent.stop()
    file.write_text("2026-02-01T00:00:00Z\n")  # it was off for most of a year
    start = agent.log.stat().st_size
    agent.start(f"--test-clock-offset-file={offset}")
    agent.says("time learnt from the server", offset=start)
    wait_until(lambda: abs(parse_rfc3339(file.read_text().strip()).timestamp() - time.time()) < 120)
    agent.stop()
