"""What others need to check our service account tokens without asking us: the OpenID description and the public keys.

/.well-known/openid-configuration and /openid/v1/jwks, open to service accounts (system:service-account-issuer-discovery).
"""

import asyncio

from edgekube.apiserver.request import Request, Response
from edgekube.apiserver.routes import Routes
from edgekube.apiserver.tokens import TokenSigner

_HEADERS = {"Cache-Control": "public, max-age=3600"}


def register(routes: Routes, signer: TokenSigner, *, jwks_uri: str) -> None:
    """Add both addresses."""

    async def keys(_request: Request) -> Response:
        await asyncio.to_thread(signer.load)
        return Response(200, signer.jwks(), "application/jwk-set+json", dict(_HEADERS))

    async def description(_request: Request) -> Response:
        return Response(200, signer.discovery(jwks_uri), "application/json", dict(_HEADERS))

    routes.add("/openid/v1/jwks", keys)
    routes.add("/.well-known/openid-configuration", description)
