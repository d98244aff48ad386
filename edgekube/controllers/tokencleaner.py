"""Join tokens that have expired are deleted (upstream's tokencleaner), a day later: until then who tries one learns that it has expired.

Reads and writes secrets of kube-system.
"""

from collections.abc import Hashable, Iterable, Sequence

from edgekube.api import bootstraptokens
from edgekube.api.catalog import SECRET
from edgekube.api.item import Item
from edgekube.api.types import Key
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result
from edgekube.errors import Conflict, NotFound

KEEP_SECONDS = 24 * 3600.0


class TokenCleaner(Base):
    """See the module."""

    name = "token-cleaner"
    workers = 1

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(SECRET, _tokens),)

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(SECRET, key)
        if item is None or item.deleting:
            return DONE
        token = bootstraptokens.read(item.decode())
        if token is None or token.expires is None:
            return DONE
        left = (token.expires - self.clock.span()[0]).total_seconds() + KEEP_SECONDS
        if left > 0:
            return Result(after=left)
        try:
            await self.client.delete(SECRET, key.name, key.namespace, uid=item.uid, revision=str(item.revision))
        except (NotFound, Conflict):
            return DONE
        return DONE


def _tokens(_old: Item | None, new: Item | None) -> Iterable[Hashable]:
    if new is not None and bootstraptokens.is_token(new):
        yield new.key
