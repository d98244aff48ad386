"""Upstreams: read live, never ourselves, answers kept, stale when nobody answers."""

import asyncio

import pytest
from dnslib import QTYPE, RR, A, DNSRecord

from edgekube.dns.component import _failure, pack
from edgekube.dns.forward import Forwarder, NoUpstream, Upstreams, parse_servers
from edgekube.dns.zone import Answer, Record


class Server(asyncio.DatagramProtocol):
    """An upstream that answers every A question with 192.0.2.1 and counts."""

    def __init__(self):
        self.asked = 0

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.asked += 1
        reply = DNSRecord.parse(data).reply()
        reply.add_answer(RR("example.org", QTYPE.A, rdata=A("192.0.2.1"), ttl=30))
        self.transport.sendto(reply.pack(), addr)


@pytest.fixture
async def upstream(tmp_path):
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    server.port = transport.get_extra_info("sockname")[1]
    server.resolv = tmp_path / "resolv.conf"
    server.resolv.write_text("nameserver 127.0.0.1\n")
    yield server
    transport.close()


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def test_servers_are_read_without_ourselves():
    text = "# x\nsearch lan\nnameserver 10.43.0.10\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 192.0.2.53\nnameserver\n"
    assert parse_servers(text, ("10.43.0.10",)) == ["192.0.2.53", "fe80::1"]


def test_the_file_is_followed_and_its_absence_keeps_the_last(tmp_path):
    path = tmp_path / "resolv.conf"
    upstreams = Upstreams(path, ())
    assert upstreams.servers() == []
    path.write_text("nameserver 192.0.2.1\n")
    assert upstreams.servers() == ["192.0.2.1"]
    path.unlink()
    assert upstreams.servers() == ["192.0.2.1"]


async def test_answers_are_kept_as_long_as_they_say_then_served_stale(upstream):
    time = Time()
    forwarder = Forwarder(Upstreams(upstream.resolv, ()), port=upstream.port, monotonic=time)
    first, second = DNSRecord.question("example.org"), DNSRecord.question("example.org")
    one = DNSRecord.parse(await forwarder.ask(first.pack(), tcp=False))
    two = DNSRecord.parse(await forwarder.ask(second.pack(), tcp=False))
    assert (one.header.id, two.header.id) == (first.header.id, second.header.id)
    assert str(two.rr[0].rdata) == "192.0.2.1"
    assert upstream.asked == 1
    time.now += 31
    await forwarder.ask(first.pack(), tcp=False)
    assert upstream.asked == 2
    upstream.resolv.write_text("# nobody\n")
    time.now += 3000
    stale = DNSRecord.parse(await forwarder.ask(second.pack(), tcp=False))
    assert str(stale.rr[0].rdata) == "192.0.2.1"
    time.now += 4000
    with pytest.raises(NoUpstream):
        await forwarder.ask(second.pack(), tcp=False)


def test_a_long_answer_is_cut_for_datagrams_only():
    request = DNSRecord.question("db.default.svc.cluster.local")
    found = Answer("NOERROR", [Record("db.default.svc.cluster.local", "A", f"10.42.0.{n}") for n in range(2, 120)])
    assert DNSRecord.parse(pack(request, found, "cluster.local", tcp=False)).header.tc == 1
    assert len(DNSRecord.parse(pack(request, found, "cluster.local", tcp=True)).rr) == 118


def test_a_missing_name_brings_the_zone_s_soa():
    request = DNSRecord.question("x.default.svc.cluster.local")
    reply = DNSRecord.parse(pack(request, Answer("NXDOMAIN"), "cluster.local", tcp=False))
    assert (reply.header.rcode, reply.header.ra, str(reply.auth[0].rname)) == (3, 1, "cluster.local.")


@pytest.mark.parametrize("query", [b"", b"\x12", b"\x12\x34", b"\x12\x34" + b"\xff" * 60])
def test_garbage_gets_an_answer_and_no_exception(query):
    assert len(_failure(query, code=1)) == 12
