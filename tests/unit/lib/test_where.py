"""What is asked and answered on a local network: round trips, limits, and what strangers send."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekube.lib import where
from edgekube.lib.lan import Source
from edgekube.lib.ratelimit import RateLimit

NONCE, CA = bytes(range(16)), b"a" * 32
ADDRESSES = ("10.0.0.1", "fd00::1")


def test_question_and_answer():
    asked = where.parse(where.question(NONCE, CA))
    assert asked == (where.QUESTION, NONCE, CA, 0, ())
    told = where.parse(where.answer(asked, 6443, ADDRESSES))
    assert told == (where.ANSWER, NONCE, CA, 6443, ADDRESSES)
    assert where.parse(where.announcement(CA, 6443, ADDRESSES)) == (where.ANNOUNCE, bytes(16), CA, 6443, ADDRESSES)


@given(st.lists(st.ip_addresses().map(str), max_size=100))
def test_no_answer_is_longer_than_its_question(addresses):
    question = where.question(NONCE, CA)
    answer = where.answer(where.parse(question), 6443, addresses)
    assert len(answer) <= len(question)
    found = where.parse(answer).addresses
    assert list(found) == addresses[: len(found)]
    assert len(found) >= min(8, len(addresses))


@given(st.binary(max_size=600))
def test_anything_else_is_passed_over(data):
    assert where.parse(data) is None


@pytest.mark.parametrize(
    "data",
    [
        where.question(NONCE, CA)[:-1],  # so short that the answer would be longer
        where.question(NONCE, CA) + b"\0",
        b"EKWHERE2" + where.question(NONCE, CA)[8:],
        where.announcement(CA, 0, ADDRESSES),
        where.announcement(CA, 6443, ADDRESSES)[:-3],
        where.announcement(CA, 6443, ("x",))[:-1] + b"\xff",
    ],
)
def test_almost_right_is_wrong(data):
    assert where.parse(data) is None


def test_a_rate_limit_lets_bursts_pass_and_then_the_rate():
    limit = RateLimit(rate=2, burst=3)
    assert [limit.allows(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limit.allows(100.6), limit.allows(100.6), limit.allows(101.1)] == [True, False, True]


def test_hints_are_numbers_and_few():
    from edgekube.agent.discovery import addresses_of

    message = where.Message(where.ANSWER, NONCE, CA, 6443, ("10.0.0.1", "evil.example", *(f"10.0.1.{n}" for n in range(50))))
    found = addresses_of(message, Source(("10.0.0.1", 6443), 0, socket.socket(socket.AF_INET)))
    assert [each.host for each in found] == ["10.0.0.1", *(f"10.0.1.{n}" for n in range(6))]
