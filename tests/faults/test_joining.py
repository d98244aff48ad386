"""Joining a real server that is killed at every step of it: no machine is counted twice, none is let in uncounted, and each gets in."""

import json
import sys
from pathlib import Path

import pytest

from edgekube.lib import csr, pki
from tests.kit.cluster import Cluster, CommandFailed, cluster
from tests.kit.requires import needs

pytestmark = [needs("netns", "kubectl"), pytest.mark.slow]


def machine(found: Cluster, token: str, name: str, folder: Path | None = None) -> dict:
    """What became of a machine that tries to join."""
    text = found.inside(
        sys.executable, "-m", "tests.kit.joiner", "https://127.0.0.1:6443", token, name, str(folder or found.base / name), timeout=60
    )
    return json.loads(text)


def tokens(found: Cluster) -> dict[str, dict[str, str]]:
    """`edgekube token list`, by id."""
    head, *rows = found.edgekube("token", "list").splitlines()
    columns = [head.index(name) for name in ("ID", "TTL", "EXPIRES", "USES LEFT", "NODE", "DESCRIPTION")]
    cut = [[row[start:end].strip() for start, end in zip(columns, [*columns[1:], None], strict=True)] for row in rows]
    return {row[0]: dict(zip(("id", "ttl", "expires", "left", "node", "description"), row, strict=True)) for row in cut}


@pytest.fixture(scope="module")
def server():
    with cluster("--disable-agent") as found:
        yield found


def test_tokens_from_the_command_line(server):
    made = server.edgekube("token", "create", "--usages", "1", "--ttl", "1h", "--description", "the attic").strip()
    assert made.startswith("EK1")
    token_id = made.partition("::")[2][:6]
    shown = tokens(server)[token_id]
    assert (shown["left"], shown["node"], shown["description"]) == ("1", "<any>", "the attic")
    command = server.edgekube("token", "create", "--node-name", "pi", "--print-join-command").split()
    assert command[:3] == ["edgekube", "agent", "--server"]
    assert command[3].startswith("https://")
    assert command[3].endswith(":6443")
    assert command[-2:] == ["--node-name", "pi"]
    bound = command[5].partition("::")[2][:6]
    assert (tokens(server)[bound]["left"], tokens(server)[bound]["node"]) == ("1", "pi")
    assert machine(server, made, "attic").keys() == {"certificate"}
    assert tokens(server)[token_id]["left"] == "0"
    assert machine(server, made, "cellar")["denied"] == "TokenUsedUp"
    assert server.edgekube("token", "delete", token_id, command[5]) == f'token "{token_id}" deleted\ntoken "{bound}" deleted\n'
    assert not {token_id, bound} & set(tokens(server))
    assert machine(server, made, "cellar")["error"].startswith(f"join token {token_id} is unknown here")
    with pytest.raises(CommandFailed, match=f"edgekube: token {token_id} does not exist"):
        server.edgekube("token", "delete", token_id)


def test_a_node_is_revoked_from_the_command_line(server):
    token = server.edgekube("token", "create").strip()
    assert "certificate" in machine(server, token, "shed")
    assert "trusted" in server.edgekube("node", "list")
    assert server.edgekube("node", "revoke", "shed") == 'node "shed" revoked\n'
    assert server.edgekube("node", "revoke", "shed") == 'node "shed" revoked\n'
    line = next(line for line in server.edgekube("node", "list").splitlines() if line.startswith("shed"))
    assert line.split() == ["shed", "<deleted>", line.split()[2], "revoked"]
    assert machine(server, token, "shed")["denied"] == "KeyRevoked"
    with pytest.raises(CommandFailed, match="edgekube: node node-1 has no key here"):
        server.edgekube("node", "revoke", "node-1")


@pytest.mark.parametrize("point", ["join.counted", "join.pinned", "csr.decided"])
def test_killed_at_a_step_of_a_join(server, point):
    name = point.replace(".", "-")
    token = server.edgekube("token", "create", "--usages", "2").strip()
    token_id = token.partition("::")[2][:6]
    server.stop()
    server.start(env={"EDGEKUBE_FAILPOINTS": f"{point}=kill"})
    assert "error" in machine(server, token, name)
    assert server.process is not None
    server.process.wait(10)
    server.process = None
    server.start()
    # What was asked before the crash is answered after it, without the machine; that it asks again changes nothing.
    assert "certificate" in machine(server, token, name)
    assert tokens(server)[token_id]["left"] == "1"
    pins = server.get("secret", "-n", "kube-system", "--field-selector=type=edgekube.io/node-identity")["items"]
    assert [one["metadata"]["name"] for one in pins].count(f"{name}.node-identity") == 1
    assert all(one["status"].get("certificate") or one["status"]["conditions"][0]["type"] == "Denied" for one in server.get("csr")["items"])
    assert "certificate" in machine(server, token, f"{name}-2")
    assert machine(server, token, f"{name}-3")["denied"] == "TokenUsedUp"


def test_a_machine_that_was_off_for_years_comes_back(server):
    """Server and machine wake up long after the certificate's end: it is refused by name, and renewed for its key."""
    folder = server.base / "cellar"
    token = server.edgekube("token", "create").strip()
    certificate = machine(server, token, "cellar", folder)["certificate"].encode()
    assert spoken(server, folder, "/api/v1/nodes")[0] == 200
    server.stop()
    offset = server.base / "offset"
    offset.write_text(str(500 * 24 * 3600))
    server.flags.append(f"--test-clock-offset-file={offset}")
    try:
        server.start()
        status, answer = spoken(server, folder, "/api/v1/nodes")
        assert (status, json.loads(answer)["message"][:60]) == (401, "the certificate of system:node:cellar does not hold now: its")
        status, renewed = spoken(server, folder, "/v1-edgekube/renew", csr.make(pki.key_pem((folder / "client.pem").read_bytes()), CELLAR))
        assert status == 200, renewed
        (folder / "client.pem").write_bytes((folder / "key.pem").read_bytes() + renewed.encode())
        assert spoken(server, folder, "/api/v1/nodes")[0] == 200
        before, after = pki.dates_of(certificate), pki.dates_of(renewed.encode())
        assert (after.issued - before.issued).days == 500
        assert "certificate renewed by proof of key" in server.log_text()
    finally:
        server.flags.pop()
        server.stop()
        (server.data / "time-floor").unlink(missing_ok=True)
        server.start()


CELLAR = pki.Subject("system:node:cellar", ("system:nodes",))
_SPEAK = """
import json, ssl, sys, urllib.error, urllib.request
from edgekube.lib.tlsclock import ignore_time
url, credential, ca, body = sys.argv[1:]
context = ignore_time(ssl.create_default_context(cafile=ca))
context.load_cert_chain(credential)
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, data=body.encode() or None), context=context, timeout=5)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


def spoken(found: Cluster, folder: Path, path: str, body: bytes = b"") -> tuple[int, str]:
    """Status and body of a request with the machine's certificate."""
    argv = ["-c", _SPEAK, f"https://127.0.0.1:6443{path}", str(folder / "client.pem"), str(found.data / "pki" / "ca.crt"), body.decode()]
    status, text = json.loads(found.inside(sys.executable, *argv))
    return status, text
