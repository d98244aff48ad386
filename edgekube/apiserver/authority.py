"""The cluster's authority as others see it: `GET /cacerts`, open to everybody.

A joining agent reads it over a connection that it does not trust yet, compares its digest with the one in the token, and only then
connects again, verified, and shows the token. The certificate is public: every TLS handshake shows it.
"""

import asyncio
from pathlib import Path

from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.routes import Routes

PATH = "/cacerts"
_PEM = "application/x-pem-file"


def register(routes: Routes, certificate: Path) -> None:
    """`certificate` is the file that holds no key; it is read again each time, for it is renewed under a running server."""

    async def answer(_request: Request) -> AnyResponse:
        return Response(200, await asyncio.to_thread(certificate.read_bytes), _PEM)

    routes.add(PATH, answer, anonymous=True)
