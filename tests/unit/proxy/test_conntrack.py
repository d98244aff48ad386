"""Which flows are stale."""

import pytest

from edgekube.proxy.conntrack import Flow, is_stale

RIGHT = {("10.43.0.5", 53): {("10.42.0.1", 5353)}, ("0.0.0.0", 30053): set(), ("::", 30053): {("fd42::1", 53)}}


@pytest.mark.parametrize(
    ("destination", "answers", "stale"),
    [
        (("10.43.0.5", 53), ("10.42.0.1", 5353), False),
        (("10.43.0.5", 53), ("10.42.0.2", 5353), True),
        (("10.43.0.5", 53), ("10.42.0.1", 53), True),
        (("10.43.0.5", 53), ("10.43.0.5", 53), True),  # into the void
        (("10.43.0.5", 54), ("10.43.0.5", 54), False),
        (("192.0.2.1", 30053), ("10.42.0.1", 53), True),
        (("2001:db8::1", 30053), ("fd42::1", 53), False),
        (("2001:db8::1", 30053), ("fd42::2", 53), True),
    ],
)
def test_stale(destination, answers, stale):
    assert is_stale(Flow(destination, answers), RIGHT) is stale
