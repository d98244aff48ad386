"""The cluster's authority as others see it: `GET /cacerts`, open to everybody.

A joining agent reads it over a connection that it does not trust yet, compares its digest with the one in the token, and only then
connects again, verified, and shows the token. The certificate is public: every TLS handshake shows it.
"""

from edgekube.apiserver.request import AnyResponse, Request, Response
from edgekube.apiserver.routes import Routes

PATH = "/cacerts"
_PEM = "application/x-pem-file"


def register(routes: Routes, ca_pem: bytes) -> None:
    """`ca_pem`: certificates only."""

    async def answer(_request: Request) -> AnyResponse:
        return Response(200, ca_pem, _PEM)

    routes.add(PATH, answer, anonymous=True)
