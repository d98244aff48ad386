"""Signing requests from asked to forgotten: approve those of nodes that may have them, sign what is approved, delete what is old.

Reads signing requests, nodes, pins and join tokens; writes the requests' conditions and certificates, pins (nodeidentity) and the tokens'
counts. Upstream's three controllers (csrapproving, csrsigning, csrcleaner) in one: a request is one key with one state at a time.

One worker, and every decision on what the API says now, not on the cache: so two machines that join at once are judged one after the other.
The steps of a join each can be the last before a crash, and the next run goes on from there:

    token: this machine is counted  >  name: pinned to its key  >  request: approved  >  request: signed

A machine that was counted and not signed asks again and is not counted again; a pin without a Node keeps the name for a while only.
"""

import asyncio
import json
import logging
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from edgekube.api import signers
from edgekube.api.catalog import CERTIFICATE_SIGNING_REQUEST, NODE
from edgekube.api.item import Item
from edgekube.api.kinds.certificatesigningrequest import conditions
from edgekube.api.nodeidentity import NAME_TAKEN, WAIT
from edgekube.api.types import Key, Obj
from edgekube.controllers.base import DONE, Base, Maps, Owns, Result, Settings, Tools
from edgekube.controllers.csrplans import Asked, plan_cleanup, plan_signature, read_request, serving_problem
from edgekube.controllers.joins import Joins
from edgekube.errors import Conflict, NotFound
from edgekube.lib import pki
from edgekube.lib.failpoint import hit

log = logging.getLogger(__name__)

_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
AUTO = "AutoApproved"
_APPROVED = "Auto approving {what} certificate after SubjectAccessReview."


class _NotYet(Exception):
    """Look again in a moment."""


class CertificateController(Base):
    """See the module."""

    name = "certificate-controller"
    primary = CERTIFICATE_SIGNING_REQUEST
    workers = 1

    def __init__(self, tools: Tools, settings: Settings) -> None:
        super().__init__(tools)
        self._authority: Path | None = settings.authority
        self._life = settings.certificate_life
        self._serving = settings.serving
        self._waiting: dict[str, set[Key]] = {}  # node -> its requests that its next address may answer
        self._joins = Joins(
            client=self.client,
            cache=self.cache,
            clock=self.clock,
            events=self.events,
            own_node=settings.own_node,
            listen_seconds=settings.listen_seconds,
        )
        self._listen = settings.listen_seconds / 4

    def watches(self) -> Sequence[Owns | Maps]:
        return (Maps(NODE, self._of_node),)

    def _of_node(self, old: Item | None, new: Item | None) -> Iterable[Hashable]:
        """Requests that wait for their node's addresses."""
        item = new or old
        if item is None:
            return
        if new is not None:
            self._joins.seen(item.key.name)
        yield from self._waiting.pop(item.key.name, ())

    async def reconcile(self, key: Key) -> Result:
        item = self.cache.get(CERTIFICATE_SIGNING_REQUEST, key)
        if item is None or item.deleting:
            self._joins.forget(key.name)
            return DONE
        found = item.decode()
        left = plan_cleanup(found, self.clock)
        if left is not None and left <= 0:
            try:
                await self.client.delete(CERTIFICATE_SIGNING_REQUEST, key.name, uid=item.uid, revision=str(item.revision))
            except (NotFound, Conflict):
                return DONE
            return DONE
        asked = read_request(found)
        if asked is not None and not conditions(found, "Approved") and not conditions(found, "Denied"):
            try:
                found = await self._judge(found, asked)
            except _NotYet:
                return Result(after=self._listen)
        if asked is not None and conditions(found, "Approved") and not conditions(found, "Failed"):
            found = await self._sign(found, asked)
        return Result(after=plan_cleanup(found, self.clock))

    # approval

    async def _judge(self, found: Obj, asked: Asked) -> Obj:
        """The request as it is afterwards; undecided ones are for a person."""
        if asked.signer == signers.KUBELET_SERVING:
            return await self._judge_serving(found, asked)
        if asked.signer != signers.KUBELET_CLIENT or signers.node_client_problem(asked.request, asked.usages):
            return found
        itself = asked.user == asked.request.common_name
        for subresource, what, fits in (("selfnodeclient", "self kubelet client", itself), ("nodeclient", "kubelet client", True)):
            if fits and await self._allowed(found, subresource):
                verdict = await self._joins.admit(asked, itself=itself, reserved=await self._reserved())
                if verdict.reason == WAIT:
                    raise _NotYet
                if verdict.reason:
                    return await self._decide(found, "Denied", verdict.reason, verdict.message)
                return await self._decide(found, "Approved", AUTO, _APPROVED.format(what=what))
        log.info("signing request not approved", extra={"request": asked.name, "user": asked.user, "why": "no permission"})
        return found

    async def _judge_serving(self, found: Obj, asked: Asked) -> Obj:
        """For the node that asks, under its own name and addresses."""
        if signers.node_serving_problem(asked.request, asked.usages) or asked.user != asked.request.common_name:
            return found
        node = signers.node_of(asked.user)
        self._waiting.setdefault(node, set()).add(Key("", asked.name))  # before looking: a change that comes meanwhile is not lost
        problem = serving_problem(asked, [item.decode() for item in self.cache.list(NODE)])
        if problem or not await self._allowed(found, "selfnodeserver"):
            log.info("signing request not approved", extra={"request": asked.name, "user": asked.user, "why": problem or "no permission"})
            return found
        return await self._decide(found, "Approved", AUTO, _APPROVED.format(what="self kubelet serving"))

    async def _reserved(self) -> frozenset[str]:
        """As the API server's certificate says now: it follows the server's addresses."""
        serving = self._serving
        return frozenset() if serving is None else await asyncio.to_thread(lambda: pki.names_of(serving.read_bytes()))

    async def _allowed(self, found: Obj, subresource: str) -> bool:
        spec = found["spec"]
        attributes = {
            "group": "certificates.k8s.io",
            "resource": "certificatesigningrequests",
            "verb": "create",
            "subresource": subresource,
        }
        subject = {"user": spec.get("username", ""), "uid": spec.get("uid", ""), "groups": spec.get("groups", [])}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": subject | {"extra": spec.get("extra", {}), "resourceAttributes": attributes},
        }
        answer = json.loads(await self.client.raw("POST", _REVIEWS, body=json.dumps(review).encode()))
        return bool(answer["status"]["allowed"])

    async def _decide(self, found: Obj, type: str, reason: str, message: str) -> Obj:
        condition = {"type": type, "status": "True", "reason": reason, "message": message}
        status = found.get("status") or {}
        wanted = found | {"status": status | {"conditions": [*(status.get("conditions") or ()), condition]}}
        answer = await self.client.update(CERTIFICATE_SIGNING_REQUEST, wanted, subresource="approval")
        extra = {"request": found["metadata"]["name"], "user": found["spec"].get("username"), "reason": reason}
        log.info("signing request approved" if type == "Approved" else "signing request denied", extra=extra)
        hit("csr.decided")
        return answer

    # signing

    async def _sign(self, found: Obj, asked: Asked) -> Obj:
        status = found.get("status") or {}
        problem = signers.problem(asked.signer, asked.request, asked.usages)
        if status.get("certificate") or problem is None or self._authority is None:
            return found
        reason = "SignerValidationFailure"
        if not problem and asked.signer == signers.KUBELET_CLIENT:
            reason, problem = NAME_TAKEN, await self._own_name(found, asked)
        if problem:
            failed = {"type": "Failed", "status": "True", "reason": reason, "message": problem}
            wanted = status | {"conditions": [*(status.get("conditions") or ()), failed]}
        else:
            # Who could serve under an address of the API server would be taken for it. A node writes its own addresses, so they prove
            # nothing; and behind a NAT a node may well have the server's address, so it is left out and not a reason to refuse.
            reserved = await self._reserved() if asked.signer == signers.KUBELET_SERVING else frozenset()
            made = await plan_signature(self._authority, asked, now=self.clock.now(), life=self._life, reserved=reserved)
            wanted = status | {"certificate": made}
        answer = await self.client.update(CERTIFICATE_SIGNING_REQUEST, found | {"status": wanted}, subresource="status")
        extra = {"request": asked.name, "signer": asked.signer}
        log.info("certificate signed" if not problem else "certificate not signed", extra=extra | ({"why": problem} if problem else {}))
        return answer

    async def _own_name(self, found: Obj, asked: Asked) -> str:
        """Why a node does not get its client certificate after all. What we approved was pinned before, and may have been given to another
        since, if we were killed in between; what a person approves is pinned now: his word goes."""
        node, key = signers.node_of(asked.request.common_name), asked.request.key_digest
        if any(one.get("reason") == AUTO for one in conditions(found, "Approved")):
            return "" if await self._joins.holds(node, key) else f"node {node} is another machine by now"
        await self._joins.pin(node, key)
        return ""
