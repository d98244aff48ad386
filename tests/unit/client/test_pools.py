"""A connection that moves leaves pools behind, which the next requests close: several of them at the same time."""

import asyncio

from edgekube.client.http import HttpClient, HttpConfig


class Via:
    """The way to the server: another generation is another pool."""

    generation = 0

    def connector(self):
        import aiohttp

        return aiohttp.TCPConnector()


async def test_many_requests_close_what_is_left_of_many_moves():
    via = Via()
    client = HttpClient(HttpConfig(server="http://edgekube", via=via))
    for _ in range(5):
        with client._session():
            via.generation += 1
    pools = list(client._retired)
    with client._session():
        await asyncio.gather(*(client._close_retired() for _ in range(4)))
    assert len(pools) == 4
    assert all(pool.session.closed for pool in pools)
    await client.close()
