"""What the self-test found, as conditions and as lines: a table."""

from edgekube.network import verdict

NOW = "2026-01-01T00:00:00Z"
GOOD, BAD = verdict.whole("b", "192.0.2.2", 1450), verdict.blocked("c", "192.0.2.3", 8472)
HEALTHY = {"type": verdict.HEALTHY, "status": "True", "reason": "PathsTested", "message": "every node that is up is reached"}


def conditions(*verdicts, troubles=(), old=()):
    return {entry["type"]: entry for entry in verdict.conditions(verdicts, troubles, old, NOW)}


def test_a_node_alone_says_nothing():
    assert conditions() == {}


def test_all_well():
    found = conditions(GOOD)[verdict.HEALTHY]
    assert found == {**HEALTHY, "lastHeartbeatTime": NOW, "lastTransitionTime": NOW}


def test_what_is_known_is_not_written_again():
    old = [{**HEALTHY, "lastHeartbeatTime": "before", "lastTransitionTime": "before"}]
    assert conditions(GOOD, old=old) == {}


def test_a_fault_names_node_and_cause():
    found = conditions(GOOD, BAD, old=[{**HEALTHY, "lastTransitionTime": "before"}])[verdict.HEALTHY]
    assert (found["status"], found["reason"], found["lastTransitionTime"]) == ("False", "PortBlocked", NOW)
    assert "node c: the machine 192.0.2.3 answers, but not through the overlay: UDP port 8472 is blocked" in found["message"]


def test_a_remedy_is_told_and_healthy_and_keeps_the_moment():
    found = conditions(verdict.narrow("b", "192.0.2.2", 1350, 1450), old=[{**HEALTHY, "lastTransitionTime": "before"}])[verdict.HEALTHY]
    assert (found["status"], found["reason"], found["lastTransitionTime"]) == ("True", "SmallerMTU", "before")


def test_a_node_that_is_off_is_no_fault():
    assert conditions(verdict.away("b", "192.0.2.2"), verdict.silent("c", "192.0.2.3"))[verdict.HEALTHY]["status"] == "True"


def test_a_kernel_that_refuses_makes_the_network_unavailable_and_available_again():
    found = conditions(GOOD, troubles=("make the tunnel: no",))
    assert (found[verdict.HEALTHY]["status"], found[verdict.UNAVAILABLE]["status"]) == ("False", "True")
    assert conditions(GOOD, old=list(found.values()))[verdict.UNAVAILABLE]["status"] == "False"


def test_lines_for_people():
    report = verdict.report("a", "192.0.2.1", [BAD, GOOD], ["x"])
    assert [good for good, _ in verdict.lines(report)] == [False, True, False]
    assert verdict.lines(report)[1][1] == "b 192.0.2.2: Passed: small packets and packets of 1450 bytes pass"
    assert verdict.lines(verdict.report("a", "192.0.2.1", [], [])) == [(True, "there are no other nodes")]
