"""Events: counted, folded, limited."""

from edgekube.client.correlate import Correlator, Sighting


def sighting(message="pulled", subject="pod", reason="Pulled"):
    return Sighting(subject, "Normal", reason, message)


def test_the_same_thing_again_is_the_same_event():
    correlator = Correlator()
    _, first = correlator.correlate(sighting(), 0)
    first.name, first.count = "x", 1
    message, second = correlator.correlate(sighting(), 1)
    assert (message, second.name) == ("pulled", "x")
    assert correlator.correlate(sighting("other"), 1)[1].count == 0


def test_the_tenth_different_message_is_folded():
    correlator = Correlator()
    messages = [correlator.correlate(sighting(f"try {n}"), n)[0] for n in range(12)]
    assert messages[8] == "try 8"
    assert messages[9] == "(combined from similar events): try 9"
    one = correlator.correlate(sighting("try 20"), 20)[1]
    one.count = 4
    assert correlator.correlate(sighting("try 21"), 21)[1].count == 4


def test_folding_ends_after_ten_quiet_minutes():
    correlator = Correlator()
    for n in range(12):
        correlator.correlate(sighting(f"try {n}"), 0)
    assert correlator.correlate(sighting("try 12"), 601)[0] == "try 12"


def test_each_object_has_25_and_one_more_every_five_minutes():
    correlator = Correlator()
    assert [correlator.allow("pod", 0) for _ in range(26)] == [True] * 25 + [False]
    assert correlator.allow("other", 0)
    assert not correlator.allow("pod", 299)
    assert correlator.allow("pod", 301)
    assert not correlator.allow("pod", 302)


def test_memory_is_bounded():
    correlator = Correlator()
    for n in range(5000):
        correlator.allow(n, 0)
        correlator.correlate(sighting(subject=n), 0)
    assert len(correlator._buckets._items) == len(correlator._known._items) == 4096
