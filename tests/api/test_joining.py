"""Joining: tokens, names, keys. One test for each way in and each way that must be closed."""

import asyncio
import base64
import contextlib
import itertools

import orjson
import pytest

from edgekube.api import bootstraptokens, catalog, signers
from edgekube.lib import pki
from edgekube.lib.pki import Subject
from tests.api.joining import REQUESTS, Joinable, Machine, Refused, joinable


@pytest.fixture
async def cluster():
    async with joinable() as made:
        yield made


async def refused(cluster: Joinable, machine: Machine, token: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await cluster.join(machine, token)
    return caught.value


async def test_a_machine_with_a_token_becomes_its_node_and_no_other(cluster):
    pi = await cluster.join(Machine("pi"), await cluster.token())
    assert await cluster.works(pi) == ""
    dates = pki.dates_of(pi.certificate)
    assert dates.not_after - dates.issued == pki.LEAF_LIFE
    assert cluster.identities.pin("pi").key == pi.digest
    # Its next certificate, asked for by itself; not that of another node, and not for another key.
    pi.certificate = await cluster.answer(await cluster.ask(pi, by=pi))
    assert await cluster.works(pi) == ""
    other = await cluster.ask(pi, by=pi, subject=Subject("system:node:other", ("system:nodes",)))
    changed = await cluster.ask(Machine("pi"), by=pi)
    with pytest.raises(Refused) as caught:
        await cluster.answer(changed)
    assert caught.value.reason == "KeyChanged"
    assert not (await cluster.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, other)).get("status", {}).get("conditions")


async def test_what_a_token_can_do(cluster):
    token = await cluster.token()
    for path in ("/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets", "/api/v1/pods", "/metrics"):
        assert (await cluster.call("GET", path, token=token))[0] == 403
    assert (await cluster.call("GET", REQUESTS, token=token))[0] == 200
    name = await cluster.ask(Machine("pi"), token=token)
    found = await cluster.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, name)
    assert found["spec"]["username"] == f"system:bootstrap:{token[:6]}"
    assert set(found["spec"]["groups"]) == {"system:bootstrappers", bootstraptokens.NODE_GROUP, "system:authenticated"}
    status, _ = await cluster.call("PUT", f"{REQUESTS}/{name}/approval", found, token=token)
    assert status == 403


async def test_each_bad_token_has_its_own_line(cluster):
    from datetime import timedelta

    good = await cluster.token()
    old = await cluster.token(life=timedelta(seconds=-1))
    signing = await cluster.token(usages=("signing",))
    revoked = await cluster.token()
    await cluster.live.client.delete(catalog.SECRET, bootstraptokens.PREFIX + revoked[:6], "kube-system")
    lines = {
        "EK1abc::x": "the join token is malformed",
        "abcdef.short": "the join token is malformed",
        "zzzzzz.0123456789abcdef": "join token zzzzzz is unknown here: it was never made, or was revoked",
        revoked: f"join token {revoked[:6]} is unknown here",
        f"{good[:6]}.0123456789abcdef": f"join token {good[:6]}: its secret is wrong",
        old: f"join token {old[:6]} expired at ",
        f"{old[:6]}.0123456789abcdef": f"join token {old[:6]}: its secret is wrong",  # no oracle for who does not know the secret
        signing: f"join token {signing[:6]} is not for joining",
    }
    for token, line in lines.items():
        status, answer = await cluster.call("GET", REQUESTS, token=token)
        assert status == 401
        assert answer["message"].startswith(line)
    assert (await cluster.call("GET", REQUESTS, token=good))[0] == 200


async def test_a_token_can_be_reviewed(cluster):
    token = await cluster.token()

    async def review(text: str, **spec) -> dict:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": text} | spec}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        return orjson.loads(await cluster.live.client.raw("POST", path, body=orjson.dumps(body)))["status"]

    good = await review(token)
    assert (good["authenticated"], good["user"]["username"]) == (True, f"system:bootstrap:{token[:6]}")
    assert "its secret is wrong" in (await review(f"{token[:6]}.0123456789abcdef"))["error"]
    assert "another audience" in (await review(token, audiences=["vault"]))["error"]


async def test_a_token_lets_in_as_many_machines_as_it_says(cluster):
    token = await cluster.token(uses=2)
    first = await cluster.join(Machine("a"), token)
    await cluster.join(Machine("b"), token)
    assert await cluster.used(token) == 2
    caught = await refused(cluster, Machine("c"), token)
    assert (caught.reason, caught.message) == (
        "TokenUsedUp",
        f'join token {token[:6]} was good for 2 machines and is used up; make a new one with "edgekube token create"',
    )
    await cluster.join(first, token)  # the same machine again, its certificate lost on the way
    assert await cluster.used(token) == 2


async def test_two_machines_at_once_use_a_token_for_one_only_once(cluster):
    token = await cluster.token(uses=1)
    names = [f"m{number}" for number in range(5)]
    done = await asyncio.gather(*(cluster.join(Machine(name), token) for name in names), return_exceptions=True)
    assert sum(isinstance(one, Machine) for one in done) == 1
    assert {one.reason for one in done if isinstance(one, Refused)} == {"TokenUsedUp"}
    assert await cluster.used(token) == 1


async def test_a_name_in_use_is_told_to_the_newcomer(cluster):
    token = await cluster.token()
    pi = await cluster.join(Machine("pi"), token)
    newcomer = Machine("pi")
    assert (await refused(cluster, newcomer, token)).reason == "NameInUse"
    newcomer.name = "pi-0a1b2c"
    await cluster.join(newcomer, token)
    assert await cluster.works(pi) == await cluster.works(newcomer) == ""
    events = [item.decode() for item in (await cluster.live.client.list(catalog.EVENT)).items]
    assert [event["involvedObject"]["name"] for event in events if event["reason"] == "NameInUse"] == ["pi"]
    server = await refused(cluster, Machine("node-1"), token)
    assert (await refused(cluster, Machine("localhost"), token)).reason == "NameInUse"
    assert (server.reason, server.message) == ("NameInUse", "node-1 is a name of the server itself: take another")


async def test_two_machines_of_one_name_at_once(cluster):
    """Neither has a Node yet: the second must not push out the first."""
    token = await cluster.token()
    done = await asyncio.gather(*(cluster.join(Machine("pi"), token, node=False) for _ in range(4)), return_exceptions=True)
    (winner,) = [one for one in done if isinstance(one, Machine)]
    assert {one.reason for one in done if isinstance(one, Refused)} == {"NameInUse"}
    assert await cluster.works(winner) == ""


async def test_a_name_whose_machine_is_gone_is_taken_until_an_administrator_says(cluster):
    token = await cluster.token()
    old = await cluster.join(Machine("pi"), token)
    await cluster.register(old, ready="Unknown")
    fresh = Machine("pi")
    caught = await refused(cluster, fresh, token)
    assert caught.reason == "NameTaken"
    assert '"kubectl delete node pi"' in caught.message
    assert '"edgekube token create --node-name pi"' in caught.message
    await cluster.live.client.delete(catalog.NODE, "pi")
    assert await cluster.works(old) == ""  # deleting revokes nothing as long as nobody takes the name
    await cluster.join(fresh, token)
    assert await cluster.works(fresh) == ""
    assert await cluster.works(old) == "401 node pi is another machine now: this one must join again, with a token"


async def test_a_machine_set_up_anew_is_not_given_another_name(cluster):
    """Its Node still looks alive for a while; but nothing is heard of it, so it is the same machine, and a suffix would be wrong."""
    token = await cluster.token()
    old = await cluster.join(Machine("pi"), token)
    caught = await refused(cluster, Machine("pi", machine_id=old.machine_id), token)
    assert caught.reason == "NameTaken"
    assert "this machine, with another key" in caught.message


async def test_a_copy_of_a_running_machine_is_given_another_name(cluster):
    """Same host name, same machine id, as copied disks have: the running one goes on showing that it lives."""
    token = await cluster.token()
    old = await cluster.join(Machine("pi"), token)
    lease = {"metadata": {"name": "pi", "namespace": "kube-node-lease"}, "spec": {"holderIdentity": "pi"}}
    lease = await cluster.live.client.create(catalog.LEASE, lease)
    name = await cluster.ask(Machine("pi", machine_id=old.machine_id), token=token)
    with pytest.raises(Refused) as caught:
        for seconds in itertools.count(40):  # it goes on living until the newcomer has its answer
            lease = await cluster.live.client.update(catalog.LEASE, lease | {"spec": {"holderIdentity": "pi", "leaseDurationSeconds": seconds}})
            with contextlib.suppress(TimeoutError):
                await cluster.answer(name, seconds=0.05)
    assert caught.value.reason == "NameInUse"
    assert await cluster.works(old) == ""


async def test_a_token_bound_to_a_name_may_replace_it_and_nothing_else(cluster):
    old = await cluster.join(Machine("pi"), await cluster.token())
    bound = await cluster.token(node="pi", uses=1)
    assert (await refused(cluster, Machine("pie"), bound)).reason == "TokenBoundToNode"
    fresh = await cluster.join(Machine("pi"), bound)
    assert (await cluster.works(fresh), (await cluster.works(old))[:3]) == ("", "401")
    assert (await refused(cluster, Machine("pi"), bound)).reason == "TokenUsedUp"


async def test_the_same_machine_rejoins_with_or_without_its_node(cluster):
    token = await cluster.token()
    pi = await cluster.join(Machine("pi"), token)
    await cluster.join(pi, token)
    await cluster.live.client.delete(catalog.NODE, "pi")
    await cluster.join(pi, token)
    assert await cluster.works(pi) == ""


async def test_a_revoked_node_does_not_come_back(cluster):
    once, many = await cluster.token(uses=1), await cluster.token()
    pi = await cluster.join(Machine("pi"), once)
    await cluster.revoke("pi")
    assert await cluster.works(pi) == "401 the key of node pi was revoked"
    assert (await refused(cluster, pi, many)).reason == "KeyRevoked"
    pi.name = "other"
    assert (await refused(cluster, pi, many)).reason == "KeyRevoked"
    assert (await refused(cluster, Machine("pi"), once)).reason == "TokenUsedUp"
    fresh = await cluster.join(Machine("pi"), many)  # a new key and a good token: another machine as far as anybody can tell
    assert await cluster.works(fresh) == ""
    pi.name = "pi"
    assert await cluster.works(pi) == "401 the key of node pi was revoked"


async def test_a_node_sees_no_token_and_no_pin_and_grants_nothing(cluster):
    token = await cluster.token()
    pi = await cluster.join(Machine("pi"), token)
    secrets = "/api/v1/namespaces/kube-system/secrets"
    for method, path in (
        ("GET", secrets),
        ("GET", f"{secrets}/bootstrap-token-{token[:6]}"),
        ("GET", f"{secrets}/pi.node-identity"),
        ("DELETE", f"{secrets}/pi.node-identity"),
        ("POST", secrets),
    ):
        status, answer = await cluster.call(method, path, {} if method == "POST" else None, machine=pi)
        assert status == 403, (method, path, answer)
    name = await cluster.ask(pi, by=pi, subject=Subject("system:node:other", ("system:nodes",)))
    found = await cluster.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, name)
    found["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}
    for part in ("approval", "status"):
        assert (await cluster.call("PUT", f"{REQUESTS}/{name}/{part}", found, machine=pi))[0] == 403


async def test_a_copied_disk_does_not_become_a_second_node(cluster):
    token = await cluster.token()
    pi = await cluster.join(Machine("pi"), token)
    assert (await refused(cluster, Machine("copy", key=pi.key), token)).reason == "KeyInUse"


async def test_a_node_that_an_administrator_made_ahead_is_joined(cluster):
    await cluster.live.client.create(catalog.NODE, {"metadata": {"name": "pi", "labels": {"room": "attic"}}})
    pi = await cluster.join(Machine("pi"), await cluster.token())
    assert await cluster.works(pi) == ""


async def test_a_certificate_that_nobody_pinned_is_worth_nothing(cluster):
    stolen = Machine("ghost")
    authority = cluster.live.pki.authority.read_bytes()
    subject = Subject("system:node:ghost", ("system:nodes",), client=True)
    stolen.certificate = pki.sign(authority, subject, pki.load_key(stolen.key).public_key(), cluster.clock.now())
    assert await cluster.works(stolen) == "401 node ghost is not known here: it must join, with a token"


async def test_names_that_are_none_are_refused(cluster):
    assert (await refused(cluster, Machine("a/../b"), await cluster.token())).reason == "NameInvalid"


async def test_serving_certificates_are_for_ones_own_name_and_addresses(cluster):
    token = await cluster.token()
    pi, other = await cluster.join(Machine("pi"), token), await cluster.join(Machine("other"), token)

    async def serving(*addresses: str, name: str = "pi") -> str:
        subject = Subject("system:node:pi", ("system:nodes",), (name,), addresses, server=True)
        return await cluster.ask(pi, by=pi, signer=signers.KUBELET_SERVING, subject=subject)

    async def addresses(machine: Machine, address: str) -> None:
        node = await cluster.live.client.get(catalog.NODE, machine.name)
        node["status"]["addresses"] = [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": machine.name}]
        await cluster.live.client.update(catalog.NODE, node, subresource="status")

    await addresses(other, "192.0.2.2")
    made = pki.load_certificate(await cluster.answer(await serving("192.0.2.1")))  # before it has said its addresses: those it asks for
    assert "system:node:pi" in made.subject.rfc4514_string()
    refused = [await serving("192.0.2.2"), await serving("192.0.2.1", name="other")]
    await addresses(pi, "192.0.2.1")
    await cluster.answer(await serving("192.0.2.1"))
    moved = await serving("192.0.2.9")
    refused.append(await cluster.ask(pi, by=other, signer=signers.KUBELET_SERVING, subject=Subject("system:node:pi", ("system:nodes",), ("pi",))))
    await addresses(pi, "192.0.2.9")  # a request that waits for its node's new address is answered when it comes
    assert await cluster.answer(moved)
    for name in refused:
        found = await cluster.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, name)
        assert not (found.get("status") or {}).get("conditions"), name


async def test_no_node_passes_for_the_api_server(cluster):
    """Not even one that says that the server's address is its own."""
    pi = await cluster.join(Machine("pi"), await cluster.token())
    node = await cluster.live.client.get(catalog.NODE, "pi")
    node["status"]["addresses"] = [
        {"type": "InternalIP", "address": "127.0.0.1"},
        {"type": "InternalIP", "address": "10.43.0.1"},
        {"type": "InternalIP", "address": "192.0.2.1"},
        *({"type": "Hostname", "address": name} for name in ("kubernetes.default.svc", "KUBERNETES.default.svc", "*.default.svc")),
    ]
    await cluster.live.client.update(catalog.NODE, node, subresource="status")
    for name in ("kubernetes.default.svc", "KUBERNETES.default.svc", "*.default.svc"):
        subject = Subject("system:node:pi", ("system:nodes",), ("pi", name), ("192.0.2.1",), server=True)
        asked = await cluster.ask(pi, by=pi, signer=signers.KUBELET_SERVING, subject=subject)
        await cluster.answer(await cluster.ask(pi, by=pi, signer=signers.KUBELET_SERVING, subject=Subject("system:node:pi", ("system:nodes",), ("pi",), server=True)))
        found = await cluster.live.client.get(catalog.CERTIFICATE_SIGNING_REQUEST, asked)  # judged before the one that came later
        assert not (found.get("status") or {}).get("conditions"), name
    subject = Subject("system:node:pi", ("system:nodes",), ("pi",), ("127.0.0.1", "10.43.0.1", "192.0.2.1"), server=True)
    made = await cluster.answer(await cluster.ask(pi, by=pi, signer=signers.KUBELET_SERVING, subject=subject))
    assert pki.names_of(made) == {"pi", "192.0.2.1"}


async def test_a_request_that_is_not_a_nodes_waits_for_a_person_and_is_signed_after_approval(cluster):
    from tests.api.test_certificates import asked

    client = cluster.live.client
    made = await client.create(catalog.CERTIFICATE_SIGNING_REQUEST, asked("ann", Subject("ann", ("devs",)), expirationSeconds=700))
    assert not made.get("status")
    approved = made | {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}}
    await client.update(catalog.CERTIFICATE_SIGNING_REQUEST, approved, subresource="approval")
    dates = pki.dates_of(await cluster.answer("ann"))
    assert (dates.not_after - dates.issued).total_seconds() == 700
    odd = await client.create(catalog.CERTIFICATE_SIGNING_REQUEST, asked("odd", Subject("ann"), usages=["server auth"]))
    await client.update(
        catalog.CERTIFICATE_SIGNING_REQUEST, odd | {"status": approved["status"]}, subresource="approval"
    )
    with pytest.raises(Refused) as caught:
        await cluster.answer("odd")
    assert (caught.value.reason, caught.value.message) == ("SignerValidationFailure", "invalid usage for client certificate: server auth")


async def test_an_approval_from_before_a_crash_does_not_take_the_name_back(cluster):
    """Approved, killed, the name given to another, started again: the old request must not be signed."""
    from tests.api.test_certificates import asked

    client = cluster.live.client
    await cluster.join(Machine("pi"), await cluster.token())
    old = Machine("pi")
    made = await client.create(catalog.CERTIFICATE_SIGNING_REQUEST, asked("old", old.subject, signer="example.com/later"))
    stored = cluster.live.server.registry.get(catalog.CERTIFICATE_SIGNING_REQUEST, "", "old")
    made["spec"]["signerName"] = signers.KUBELET_CLIENT
    condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": "m"}
    await cluster.live.server.registry.update(
        catalog.CERTIFICATE_SIGNING_REQUEST, made | {"status": {"conditions": [condition]}}, stored.revision
    )
    with pytest.raises(Refused) as caught:
        await cluster.answer("old")
    assert (caught.value.reason, caught.value.message) == ("NameTaken", "node pi is another machine by now")


async def test_an_administrator_who_approves_a_node_pins_it(cluster):
    """His word goes, also where the name is another machine's."""
    from tests.api.test_certificates import asked

    old = await cluster.join(Machine("pi"), await cluster.token())
    fresh = Machine("pi")
    name = await cluster.ask(fresh, token=await cluster.token(), signer=signers.KUBELET_CLIENT)
    with pytest.raises(Refused):
        await cluster.answer(name)
    client = cluster.live.client
    held = await client.create(catalog.CERTIFICATE_SIGNING_REQUEST, asked("hand", fresh.subject, signer="example.com/later"))
    stored = cluster.live.server.registry.get(catalog.CERTIFICATE_SIGNING_REQUEST, "", "hand")
    held["spec"]["signerName"] = signers.KUBELET_CLIENT
    condition = {"type": "Approved", "status": "True", "reason": "KubectlApprove", "message": "m"}
    await cluster.live.server.registry.update(
        catalog.CERTIFICATE_SIGNING_REQUEST, held | {"status": {"conditions": [condition]}}, stored.revision
    )
    await cluster.answer("hand")
    assert (await cluster.works(old)).startswith("401 node pi is another machine now")


async def test_an_administrator_may_ask_for_a_node(cluster):
    """Without a token that is good for it."""
    from tests.api.test_certificates import asked

    client = cluster.live.client
    pi = Machine("pi")
    made = await client.create(catalog.CERTIFICATE_SIGNING_REQUEST, asked("pi", pi.subject, signer=signers.KUBELET_CLIENT))
    certificate = pki.load_certificate(await cluster.answer("pi"))
    from cryptography.hazmat.primitives.serialization import Encoding

    from edgekube.lib import der

    assert cluster.identities.pin("pi").key == der.key_digest(certificate.public_bytes(Encoding.DER))
    assert base64.b64decode(made["spec"]["request"])


async def test_old_requests_and_old_tokens_are_swept_away(cluster):
    from datetime import timedelta

    from edgekube.lib.clock import rfc3339
    from tests.api.test_certificates import asked

    client, registry, kind = cluster.live.client, cluster.live.server.registry, catalog.CERTIFICATE_SIGNING_REQUEST
    fresh, expired, old = [await cluster.token(life=timedelta(hours=hours)) for hours in (1, -1, -25)]
    made = await client.create(kind, asked("denied", Subject("ann")))
    await client.create(kind, asked("pending", Subject("ann")))
    then = rfc3339(cluster.clock.now() - timedelta(hours=2))
    condition = {"type": "Denied", "status": "True", "reason": "r", "message": "m", "lastUpdateTime": then}
    stored = registry.get(kind, "", "denied")
    await registry.update(kind, made | {"status": {"conditions": [condition]}}, stored.revision)
    names = {bootstraptokens.PREFIX + token[:6] for token in (fresh, expired)}
    async with asyncio.timeout(10):
        while {item.name for item in (await client.list(kind)).items} != {"pending"}:
            await cluster.changed(kind)
        while {item.name for item in (await client.list(catalog.SECRET, "kube-system")).items if bootstraptokens.is_token(item)} != names:
            await cluster.changed(catalog.SECRET)
    assert old[:6] not in {name[-6:] for name in names}
