"""Fronts that two claim: the oldest has it, the next takes over."""

from edgekube.api.types import Key
from edgekube.proxy.book import Book
from edgekube.proxy.model import Endpoint, Front, Target

FRONT, OTHER = Front("192.0.2.1", "tcp", 80), Front("192.0.2.1", "tcp", 81)
A, B = Key("default", "a"), Key("default", "b")
TO_A, TO_B = Target((Endpoint("10.42.0.1", 80),)), Target((Endpoint("10.42.0.2", 80),))


def test_the_oldest_has_it_and_the_next_takes_over():
    book = Book()
    book.put(B, "2026-01-02", {FRONT: TO_B, OTHER: TO_B})
    book.put(A, "2026-01-01", {FRONT: TO_A})
    assert book.get([FRONT, OTHER]) == {FRONT: TO_A, OTHER: TO_B} == book.all()
    book.put(A, "", {})
    assert A not in book
    assert book.get([FRONT]) == {FRONT: TO_B}
    book.put(B, "2026-01-02", {OTHER: TO_B})
    assert book.get([FRONT, OTHER]) == {OTHER: TO_B}
    assert set(book.fronts(B)) == {OTHER}


def test_equal_age_is_decided_by_name():
    book = Book()
    book.put(B, "2026-01-01", {FRONT: TO_B})
    book.put(A, "2026-01-01", {FRONT: TO_A})
    assert book.all() == {FRONT: TO_A}
