"""A live API server per test, over TLS on 127.0.0.1."""

import pytest_asyncio

from tests.kit.apiserver import live_server


@pytest_asyncio.fixture
async def live():
    async with live_server() as found:
        yield found
