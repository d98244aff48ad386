"""The DNS server of a node: UDP and TCP on the cluster DNS address.

Reads: Services, EndpointSlices, Namespaces (its own cache) and the host's resolv.conf. Promises: a cluster name is answered from memory in
one turn of the loop; questions for outside never delay it; at most 1,000 questions wait for upstream at once, more are refused (SERVFAIL).
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekube.api.catalog import ENDPOINT_SLICE, NAMESPACE, SERVICE
from edgekube.api.item import Item
from edgekube.api.types import Key, Obj
from edgekube.client.cache import Cache
from edgekube.client.protocol import Client
from edgekube.dns import zone
from edgekube.dns.forward import Forwarder, NoUpstream, Upstreams
from edgekube.lib.metrics import counter
from edgekube.lib.tasks import TaskScope

log = logging.getLogger(__name__)

_ANSWERS = counter("coredns_dns_responses_total", "Answers by kind", ("rcode",))
_IP_FREEBIND = 15
_PENDING = 1000
_SERVICE = "service"
_ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsConfig:
    """`address`: one, or one of each address family with a comma between."""

    address: str
    domain: str
    resolv_conf: Path
    port: int = 53

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self.address.split(","))


class CacheDirectory:
    """`zone.Directory` over a node's cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        cache.add_index(ENDPOINT_SLICE, _SERVICE, _service_of)
        cache.add_index(ENDPOINT_SLICE, _ADDRESS, _addresses_of)
        cache.add_index(SERVICE, _ADDRESS, _cluster_addresses)

    def service(self, namespace: str, name: str) -> Obj | None:
        item = self._cache.get(SERVICE, Key(namespace, name))
        return item.decode() if item is not None else None

    def slices(self, namespace: str, name: str) -> Sequence[Obj]:
        return [item.decode() for item in self._cache.by_index(ENDPOINT_SLICE, _SERVICE, f"{namespace}/{name}")]

    def services_at(self, address: str) -> Sequence[Obj]:
        return [item.decode() for item in self._cache.by_index(SERVICE, _ADDRESS, address)]

    def slices_at(self, address: str) -> Sequence[Obj]:
        return [item.decode() for item in self._cache.by_index(ENDPOINT_SLICE, _ADDRESS, address)]

    def has_namespace(self, namespace: str) -> bool:
        return self._cache.get(NAMESPACE, Key("", namespace)) is not None


def _service_of(item: Item) -> tuple[str, ...]:
    name = item.labels.get("kubernetes.io/service-name")
    return (f"{item.namespace}/{name}",) if name else ()


def _cluster_addresses(item: Item) -> Sequence[str]:
    """Only a Service that may have two is decoded."""
    if b'DualStack"' in item.raw:
        return [address for address in item.decode()["spec"].get("clusterIPs") or () if address != "None"]
    return (item.fields.get("spec.clusterIP", ""),)


def _addresses_of(item: Item) -> Sequence[str]:
    return [address for entry in item.decode().get("endpoints") or () for address in entry["addresses"]]


class DnsServer:
    """See the module."""

    name = "dns"

    def __init__(self, *, config: DnsConfig, client: Client) -> None:
        self._config = config
        self._cache = Cache(client=client, sources=(SERVICE, ENDPOINT_SLICE, NAMESPACE))
        self._directory = CacheDirectory(self._cache)
        self._forwarder = Forwarder(Upstreams(config.resolv_conf, config.addresses))
        self._scope = TaskScope("dns")

    async def run(self, ready: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._scope)
            for address in self._config.addresses:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Udp(self._datagram), sock=self._socket(address, socket.SOCK_DGRAM)
                )
                stack.callback(transport.close)
                tcp = self._socket(address, socket.SOCK_STREAM)
                tcp.listen(128)
                await stack.enter_async_context(await asyncio.start_server(self._connection, sock=tcp))
            ready.set()
            await self._cache.run()

    def _socket(self, address: str, kind: int) -> socket.socket:
        """Bound before the address exists: the network component adds it when the node has its pod range."""
        found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # both families
        found.bind((address, self._config.port))
        found.setblocking(False)
        return found

    def _datagram(self, query: bytes, reply: Callable[[bytes], None]) -> None:
        answered = self._local(query, tcp=False)
        if isinstance(answered, bytes):
            reply(answered)
        elif len(self._scope) >= _PENDING:
            reply(_failure(query))
        else:
            self._scope.spawn(self._answer_later(query, answered, reply), name="forward")

    async def _answer_later(self, query: bytes, follow: str, reply: Callable[[bytes], None]) -> None:
        reply(await self._forward(query, follow, tcp=False))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(10):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                answered = self._local(query, tcp=True)
                answer = answered if isinstance(answered, bytes) else await self._forward(query, answered, tcp=True)
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass  # the client is gone or has said all
        finally:
            writer.close()

    def _local(self, query: bytes, *, tcp: bool) -> bytes | str:
        """A finished answer, or the name to ask upstream for ("": the question itself)."""
        from dnslib import QTYPE, DNSError, DNSRecord

        try:
            request = DNSRecord.parse(query)
            question = request.q
        except (DNSError, struct.error, ValueError, IndexError):
            return _failure(query, code=1)
        name, qtype = str(question.qname).rstrip("."), str(QTYPE.get(question.qtype, question.qtype))
        ours = name.lower().endswith(self._config.domain)
        if ours and not self._cache.synced:
            return _failure(query)
        found = zone.answer(name, qtype, self._config.domain, self._directory)
        if found.status == "ELSEWHERE":
            return ""
        if found.follow:
            return found.follow
        _ANSWERS.labels(found.status).inc()
        return pack(request, found, self._config.domain, tcp=tcp)

    async def _forward(self, query: bytes, follow: str, *, tcp: bool) -> bytes:
        try:
            if not follow:
                return await self._forwarder.ask(query, tcp=tcp)
            return await self._follow(query, follow, tcp=tcp)
        except NoUpstream:
            _ANSWERS.labels("SERVFAIL").inc()
            return _failure(query)

    async def _follow(self, query: bytes, target: str, *, tcp: bool) -> bytes:
        """An ExternalName: our CNAME, completed by what the target's name answers (here or upstream)."""
        from dnslib import CNAME, QTYPE, RR, DNSRecord

        request = DNSRecord.parse(query)
        reply = request.reply()
        reply.add_answer(RR(request.q.qname, QTYPE.CNAME, rdata=CNAME(target), ttl=zone.TTL))
        inner = DNSRecord.question(target, str(QTYPE.get(request.q.qtype)))
        inner.header.id = request.header.id
        packed = inner.pack()
        local = self._local(packed, tcp=tcp)
        answer = local if isinstance(local, bytes) else await self._forwarder.ask(packed, tcp=tcp) if not local else b""
        if answer:
            reply.rr.extend(DNSRecord.parse(answer).rr)
        return bytes(reply.pack())


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        self._receive = receive
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._receive(data, lambda answer: self._transport.sendto(answer, addr))


def _failure(query: bytes, *, code: int = 2) -> bytes:
    """An answer without content: SERVFAIL, or FORMERR for what is no question. Works on anything with an id."""
    identity = query[:2].ljust(2, b"\0")
    question = query[12:] if code == 2 and len(query) > 12 and query[4:6] == b"\0\1" and query[10:12] == b"\0\0" else b""
    return identity + struct.pack("!HHHHH", 0x8180 | code, 1 if question else 0, 0, 0, 0) + question


def pack(request: Any, found: zone.Answer, domain: str, *, tcp: bool) -> bytes:
    """The answer as a message; cut with TC when it does not fit the client's datagram."""
    from dnslib import QTYPE, RCODE, RR, SOA

    reply = request.reply(ra=1, aa=1)
    reply.header.rcode = getattr(RCODE, found.status)
    for record in found.records:
        reply.add_answer(_resource(record))
    for record in found.extra:
        reply.add_ar(_resource(record))
    if not found.records:
        soa = SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", (1, 7200, 1800, 86400, zone.TTL))
        reply.add_auth(RR(domain, QTYPE.SOA, rdata=soa, ttl=zone.TTL))
    packed = bytes(reply.pack())
    limit = max([512, *(entry.edns_len for entry in request.ar if entry.rtype == QTYPE.OPT)])
    return packed if tcp or len(packed) <= limit else bytes(reply.truncate().pack())


def _resource(record: zone.Record) -> Any:
    from dnslib import AAAA, CNAME, PTR, QTYPE, RR, SRV, TXT, A

    kind = record.type
    if isinstance(record.data, tuple):
        data: Any = SRV(0, 100, record.data[0], record.data[1])
    else:
        data = {"A": A, "AAAA": AAAA, "CNAME": CNAME, "PTR": PTR, "TXT": TXT}[kind](record.data)
    return RR(record.name, getattr(QTYPE, kind), rdata=data, ttl=zone.TTL)
