"""Namespace: empty a namespace that is being deleted, say what is left, and let it go when it is empty.

Reads namespaces and lists every namespaced kind; deletes their objects; writes namespaces/status and namespaces/finalize. Pods go first
and get their grace; everything else follows when no pod is left. Each deletion in a dying namespace wakes its key, so nothing is polled
but objects that end by their own clock.
"""

import asyncio
from collections.abc import Hashable, Iterable, Sequence

from edgekube.api.catalog import KINDS, NAMESPACE, POD
from edgekube.api.item import Item
from edgekube.api.kind import Kind
from edgekube.api.types import Key, Obj
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result
from edgekube.controllers.namespacecontent import Remains, plan_conditions
from edgekube.errors import ApiError, Conflict, MethodNotAllowed, NotFound
from edgekube.lib.clock import rfc3339

FINALIZER = "kubernetes"
OTHER_WAIT = 15.0  # objects that somebody else's finalizer holds are looked at again
AT_ONCE = 32  # deletions under way


class NamespaceController(Base):
    name = "namespace-controller"
    primary = NAMESPACE

    def watches(self) -> Sequence[Owns | Maps]:
        return tuple(Maps(kind, self._of_content) for kind in self.cache.kinds if kind.namespaced)

    def _of_content(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        if new is None and old is not None:
            namespace = self.cache.get(NAMESPACE, Key("", old.namespace))
            if namespace is not None and namespace.deleting:
                yield namespace.key

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(NAMESPACE, key)
        if item is None or not item.deleting:
            return DONE
        namespace = item.decode()
        if FINALIZER not in ((namespace.get("spec") or {}).get("finalizers") or ()):
            return DONE
        remains = await self._delete_content(key.name)
        namespace = await self._write_status(namespace, remains)
        if remains.errors:
            raise ApiError("; ".join(sorted(remains.errors)))
        if remains.counts:
            return Result(after=remains.wait or OTHER_WAIT)
        await self._finalize(namespace)
        return DONE

    async def _delete_content(self, namespace: str) -> Remains:
        remains = Remains()
        await self._delete_kind(POD, namespace, remains)
        if remains.counts or remains.errors:
            return remains
        seen = {POD.bucket}
        for kind in KINDS:
            if kind.namespaced and kind.bucket not in seen and "delete" in kind.verbs and "list" in kind.verbs:
                seen.add(kind.bucket)
                await self._delete_kind(kind, namespace, remains)
        return remains

    async def _delete_kind(self, kind: Kind, namespace: str, remains: Remains) -> None:
        try:
            items = [item for item in (await self.client.list(kind, namespace)).items if not item.deleting]
            await self._delete_all(kind, items)
            left = (await self.client.list(kind, namespace)).items
        except (NotFound, MethodNotAllowed):
            return
        except ApiError as error:
            remains.errors.append(f"{kind.plural}: {error.message}")
            return
        if not left:
            return
        remains.counts[f"{kind.plural}.{kind.group}"] = len(left)
        for item in left:
            obj = item.decode()
            for finalizer in obj["metadata"].get("finalizers") or ():
                remains.finalizers[finalizer] = remains.finalizers.get(finalizer, 0) + 1
            remains.wait = max(remains.wait, self._grace(kind, obj))

    async def _delete_all(self, kind: Kind, items: Sequence[Item]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def delete(item: Item) -> ApiError | None:
            async with gate:
                try:
                    await self.client.delete(kind, item.name, item.namespace, propagation="Background", uid=item.uid)
                except (NotFound, Conflict):
                    return None
                except ApiError as error:
                    return error
            return None

        errors = [error for error in await asyncio.gather(*map(delete, items)) if error is not None]
        if errors:
            raise errors[0]

    @staticmethod
    def _grace(kind: Kind, obj: Obj) -> float:
        """How long it may take to end; half of the estimate and a second, as upstream waits."""
        if kind != POD:
            return 0.0
        seconds = obj["metadata"].get("deletionGracePeriodSeconds", obj["spec"].get("terminationGracePeriodSeconds", 30))
        return float(seconds) / 2 + 1

    async def _write_status(self, namespace: Obj, remains: Remains) -> Obj:
        status = dict(namespace.get("status") or {})
        fresh = status | {"phase": "Terminating"}
        fresh["conditions"] = plan_conditions(status.get("conditions") or (), remains, rfc3339(self.clock.now()))
        if fresh == status:
            return namespace
        try:
            return await self.client.update(NAMESPACE, namespace | {"status": fresh}, subresource="status")
        except NotFound:
            return namespace

    async def _finalize(self, namespace: Obj) -> None:
        spec = dict(namespace.get("spec") or {})
        spec["finalizers"] = [name for name in spec.get("finalizers") or () if name != FINALIZER]
        try:
            await self.client.update(NAMESPACE, namespace | {"spec": spec}, subresource="finalize")
        except NotFound:
            return
