"""The cluster's authority as others see it: `GET /cacerts`, open to everybody.

A joining agent reads it over a connection that it does not trust yet, compares its digest with the one in the token, and only then
connects again, verified, and shows the token. The certificate is public: every TLS handshake shows it. The answer is dated, so that a
machine without a battery behind its clock learns the time of its cluster, over that verified connection.
"""

import asyncio
from email.utils import format_datetime
from pathlib import Path

from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.routes import Routes
from edgekube.lib.clock import Clock

PATH = "/cacerts"
_PEM = "application/x-pem-file"


def register(routes: Routes, certificate: Path, clock: Clock) -> None:
    """`certificate` is the file that holds no key; it is read again each time, for it is renewed under a running server."""

    async def answer(_request: Request) -> AnyResponse:
        dated = {"Date": format_datetime(clock.now(), usegmt=True)}
        return Response(200, await asyncio.to_thread(certificate.read_bytes), _PEM, headers=dated)

    routes.add(PATH, answer, anonymous=True)
