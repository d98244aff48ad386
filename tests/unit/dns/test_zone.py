"""The zone as a table: question -> status and records, after the Kubernetes DNS specification."""

import pytest

from edgekube.dns import zone
from edgekube.dns.zone import Record

DOMAIN = "cluster.local"
WEB = "web.default.svc.cluster.local"
DUAL = "dual.default.svc.cluster.local"
DUAL6 = "6" + ".0" * 23 + ".0.0.0.0.3.4.d.f.ip6.arpa"
DB = "db.default.svc.cluster.local"


def service(name, **spec):
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def slice_of(name, *endpoints, ports=(("sql", "TCP", 5432),)):
    return {
        "metadata": {"name": f"{name}-x", "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": ready}, **({"hostname": host} if host else {})}
            for address, host, ready in endpoints
        ],
    }


class Directory:
    services = {
        "web": service("web", clusterIP="10.43.0.5", ports=[{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        "db": service("db", clusterIP="None", ports=[{"name": "sql", "port": 5432}]),
        "empty": service("empty", clusterIP="None", ports=[{"name": "sql", "port": 1}]),
        "dual": service("dual", clusterIP="10.43.0.6", clusterIPs=["10.43.0.6", "fd43::6"], ports=[]),
        "out": service("out", type="ExternalName", externalName="example.org."),
    }
    endpoint_slices = {"db": [slice_of("db", ("10.42.0.7", "db-0", True), ("10.42.0.8", "", True), ("10.42.0.9", "db-2", False))]}

    def service(self, namespace, name):
        return self.services.get(name) if namespace == "default" else None

    def slices(self, namespace, name):
        return self.endpoint_slices.get(name, [])

    def services_at(self, address):
        found = self.services.values()
        return [one for one in found if address in one["spec"].get("clusterIPs", [one["spec"].get("clusterIP")])]

    def slices_at(self, address):
        return [s for found in self.endpoint_slices.values() for s in found if any(address in e["addresses"] for e in s["endpoints"])]

    def has_namespace(self, namespace):
        return namespace == "default"


@pytest.mark.parametrize(
    ("name", "qtype", "status", "records"),
    [
        (WEB, "A", "NOERROR", [Record(WEB, "A", "10.43.0.5")]),
        (DUAL, "A", "NOERROR", [Record(DUAL, "A", "10.43.0.6")]),
        (DUAL, "AAAA", "NOERROR", [Record(DUAL, "AAAA", "fd43::6")]),
        ("fd42--7.default.pod.cluster.local", "AAAA", "NOERROR", [Record("fd42--7.default.pod.cluster.local", "AAAA", "fd42::7")]),
        (DUAL6, "PTR", "NOERROR", [Record(DUAL6, "PTR", DUAL)]),
        ("1.ip6.arpa", "PTR", "ELSEWHERE", []),
        (WEB.upper(), "A", "NOERROR", [Record(WEB.upper(), "A", "10.43.0.5")]),
        (WEB, "AAAA", "NOERROR", []),
        (WEB, "SRV", "NOERROR", [Record(WEB, "SRV", (80, WEB)), Record(WEB, "SRV", (53, WEB))]),
        ("_http._tcp." + WEB, "SRV", "NOERROR", [Record("_http._tcp." + WEB, "SRV", (80, WEB))]),
        ("_http._udp." + WEB, "SRV", "NXDOMAIN", []),
        ("_http._tcp." + WEB, "A", "NOERROR", []),
        (DB, "A", "NOERROR", [Record(DB, "A", "10.42.0.7"), Record(DB, "A", "10.42.0.8")]),
        ("db-0." + DB, "A", "NOERROR", [Record("db-0." + DB, "A", "10.42.0.7")]),
        ("10-42-0-8." + DB, "A", "NOERROR", [Record("10-42-0-8." + DB, "A", "10.42.0.8")]),
        ("db-2." + DB, "A", "NXDOMAIN", []),  # not ready
        (
            "_sql._tcp." + DB, "SRV", "NOERROR",
            [Record("_sql._tcp." + DB, "SRV", (5432, "db-0." + DB)), Record("_sql._tcp." + DB, "SRV", (5432, "10-42-0-8." + DB))],
        ),
        ("empty.default.svc.cluster.local", "A", "NXDOMAIN", []),
        ("out.default.svc.cluster.local", "A", "NOERROR", [Record("out.default.svc.cluster.local", "CNAME", "example.org")]),
        ("nothing.default.svc.cluster.local", "A", "NXDOMAIN", []),
        ("web.other.svc.cluster.local", "A", "NXDOMAIN", []),
        ("default.svc.cluster.local", "A", "NOERROR", []),
        ("other.svc.cluster.local", "A", "NXDOMAIN", []),
        ("svc.cluster.local", "A", "NOERROR", []),
        ("cluster.local", "A", "NOERROR", []),
        ("10-42-0-7.default.pod.cluster.local", "A", "NOERROR", [Record("10-42-0-7.default.pod.cluster.local", "A", "10.42.0.7")]),
        ("10-42-0-777.default.pod.cluster.local", "A", "NXDOMAIN", []),
        ("10-42-0-7.other.pod.cluster.local", "A", "NXDOMAIN", []),
        ("dns-version.cluster.local", "TXT", "NOERROR", [Record("dns-version.cluster.local", "TXT", "1.1.0")]),
        ("5.0.43.10.in-addr.arpa", "PTR", "NOERROR", [Record("5.0.43.10.in-addr.arpa", "PTR", WEB)]),
        ("7.0.42.10.in-addr.arpa", "PTR", "NOERROR", [Record("7.0.42.10.in-addr.arpa", "PTR", "db-0." + DB)]),
        ("8.8.8.8.in-addr.arpa", "PTR", "ELSEWHERE", []),
        ("example.org", "A", "ELSEWHERE", []),
        ("notcluster.local", "A", "ELSEWHERE", []),
    ],
)  # fmt: skip
def test_answers(name, qtype, status, records):
    found = zone.answer(name, qtype, DOMAIN, Directory())
    assert (found.status, list(found.records)) == (status, records)


def test_an_external_name_is_followed_for_addresses_only():
    assert zone.answer("out.default.svc.cluster.local", "A", DOMAIN, Directory()).follow == "example.org"
    assert zone.answer("out.default.svc.cluster.local", "CNAME", DOMAIN, Directory()).follow == ""


def test_headless_srv_brings_the_addresses_along():
    found = zone.answer("_sql._tcp." + DB, "SRV", DOMAIN, Directory())
    assert Record("db-0." + DB, "A", "10.42.0.7") in found.extra
