"""What `edgekube status --node` says of a node."""

import json

import pytest

from edgekube.cli.status import node_state


def node(*conditions):
    return json.dumps({"status": {"conditions": [{"type": kind, "status": status, "message": text} for kind, status, text in conditions]}})


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (404, "", (False, "node n has not registered yet")),
        (
            0,
            "https://127.0.0.1:6443 does not answer: refused",
            (False, "node n can not be read: https://127.0.0.1:6443 does not answer: refused"),
        ),
        (200, "{}", (False, "node n has not reported yet")),
        (200, node(("MemoryPressure", "True", "")), (False, "node n has not reported yet")),
        (200, node(("Ready", "False", "the network is not up")), (False, "node n is not ready: the network is not up")),
        (200, node(("Ready", "Unknown", "silent")), (False, "node n is not ready: silent")),
        (200, node(("DiskPressure", "False", ""), ("Ready", "True", "")), (True, "node n is ready")),
    ],
)
def test_node_state(status, text, expected):
    assert node_state("n", status, text) == expected
