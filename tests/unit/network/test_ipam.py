"""Addresses: round robin, claims from the kernel, exhaustion."""

import pytest

from edgekube.network.ipam import Addresses, Pools, RangeFull


def test_own_network_and_broadcast_are_never_given_out():
    pool = Addresses("10.42.3.0/28")
    given = {pool.take(f"pod{n}") for n in range(13)}
    assert pool.own == "10.42.3.1"
    assert given == {f"10.42.3.{n}" for n in range(2, 15)}
    with pytest.raises(RangeFull, match="10.42.3.0/28"):
        pool.take("one more")


def test_a_released_address_rests_until_the_others_were_used():
    pool = Addresses("10.42.3.0/28")
    first = pool.take("a")
    pool.release("a")
    others = [pool.take(f"b{n}") for n in range(12)]
    assert first not in others
    assert pool.take("c") == first


def test_claimed_addresses_are_not_given_out_again():
    pool = Addresses("10.42.3.0/24")
    pool.claim("10.42.3.2", "old")
    pool.claim("10.42.3.9", "older")
    assert pool.take("new") == "10.42.3.10"
    pool.release("old")
    assert "10.42.3.2" in {pool.take(f"n{n}") for n in range(251)}


def test_too_small_a_range_is_refused():
    with pytest.raises(ValueError, match="too small"):
        Addresses("10.42.3.0/30")


def test_a_wanted_address_is_given_if_it_is_free():
    pool = Addresses("10.42.1.0/24")
    assert pool.take("a", ["10.42.1.9"]) == "10.42.1.9"
    assert pool.take("b", ["10.42.1.9"]) == "10.42.1.2"
    for odd in ("10.42.1.0", "10.42.1.1", "10.42.1.255", "10.42.2.7", "fd00::7"):
        assert pool.take(odd, [odd]) not in (odd, "10.42.1.9")


def test_a_pod_gets_an_address_of_each_family_or_none():
    pools = Pools(("10.42.3.0/29", "fd42::/64"))
    assert pools.take("a") == ("10.42.3.2", "fd42::2")
    for name in "bcde":
        pools.take(name)
    with pytest.raises(RangeFull, match=r"10\.42\.3\.0/29"):
        pools.take("f")
    pools.release("a")
    assert pools.take("f") == ("10.42.3.2", "fd42::7")  # the second family's was not kept by the refused one


def test_addresses_of_both_families_are_claimed():
    pools = Pools(("10.42.3.0/24", "fd42::/64"))
    pools.claim(("10.42.3.2", "fd42::2"), "old")
    assert pools.take("new") == ("10.42.3.3", "fd42::3")
