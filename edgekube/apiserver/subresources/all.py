"""The subresources that the server is given, besides status, scale and finalize, which are part of it."""

from collections.abc import Sequence

from edgekube.apiserver.relay import NodeDialer
from edgekube.apiserver.subresources import containers, proxy
from edgekube.apiserver.subresources.approval import ApprovalSubresource
from edgekube.apiserver.subresources.binding import BindingSubresource
from edgekube.apiserver.subresources.ephemeral import EphemeralContainersSubresource
from edgekube.apiserver.subresources.eviction import EvictionSubresource
from edgekube.apiserver.subresources.protocol import Subresource
from edgekube.apiserver.subresources.token import TokenSubresource
from edgekube.apiserver.tokens import TokenSigner


def build(*, signer: TokenSigner, dialer: NodeDialer) -> Sequence[Subresource]:
    """All of them."""
    return (
        ApprovalSubresource(),
        BindingSubresource(),
        EvictionSubresource(),
        TokenSubresource(signer),
        EphemeralContainersSubresource(),
        *containers.build(dialer),
        proxy.ProxySubresource(dialer),
    )
