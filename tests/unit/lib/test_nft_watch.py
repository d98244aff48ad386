"""Watches of the kernel's tables: a socket that is no more is told once, and asked no more."""

import asyncio

import pytest

from edgekube.lib.nft import TableWatch
from edgekube.proxy.localroutes import LocalRoutesWatch

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("make", [lambda notify: TableWatch("t", notify), LocalRoutesWatch])
async def test_a_socket_that_is_no_more_ends_the_reading(make):
    told = []
    watch = make(lambda: told.append(1))
    asyncio.get_running_loop().remove_reader(watch._socket.fileno())
    watch._socket.close()
    watch._readable()
    assert told == [1]
