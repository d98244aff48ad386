"""Names with scheme and port, and the choice of an endpoint."""

import pytest

from edgekube.api import catalog
from edgekube.apiserver.identity import User
from edgekube.apiserver.operation import Operation
from edgekube.apiserver.subresources.proxy import allowed_address, ready_endpoints, rewrite_location, service_port, split_name
from edgekube.errors import BadRequest, ServiceUnavailable


@pytest.mark.parametrize(
    ("name", "address"),
    [("a", ("http", "a", "")), ("a:80", ("http", "a", "80")), ("https:a:443", ("https", "a", "443")), ("https:a:", ("https", "a", ""))],
)
def test_names(name: str, address: tuple[str, str, str]) -> None:
    assert tuple(split_name(Operation(catalog.POD, User("x"), "n", name))) == address


@pytest.mark.parametrize("name", ["ftp:a:1", "a:b:c:d", ":80"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadRequest, match=f'invalid pod request "{name}"'):
        split_name(Operation(catalog.POD, User("x"), "n", name))


def test_ports_of_a_service() -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}}
    assert service_port(service, "http") == "http"
    assert service_port(service, "81") == "admin"
    assert service_port({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}, "") == ""
    with pytest.raises(ServiceUnavailable, match='no service port "x" found for service "web"'):
        service_port(service, "x")


def test_only_ready_endpoints_of_that_port() -> None:
    one = {
        "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9}],
        "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": False}}],
    }
    assert ready_endpoints([one], "http") == [("10.0.0.1", 8080, "", "")]
    assert ready_endpoints([one], "none") == []


@pytest.mark.parametrize(
    ("location", "seen"),
    [("/login?a=b", "/p/proxy/login?a=b"), ("http://10.0.0.1:80/x", "/p/proxy/x"), ("https://elsewhere/x", "https://elsewhere/x")],
)
def test_redirects_stay_behind_the_proxy(location: str, seen: str) -> None:
    headers = {"location": location}
    rewrite_location(headers, "10.0.0.1:80", "/p/proxy")
    assert headers["location"] == seen


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.8.8", "localhost", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "::ffff:127.0.0.1"],
)
async def test_addresses_of_this_host_alone_are_not_gone_to(host: str) -> None:
    with pytest.raises(BadRequest, match="address not allowed"):
        await allowed_address(host)


@pytest.mark.parametrize("host", ["10.42.0.7", "192.168.1.1", "fd42::7", "2001:db8::1"])
async def test_addresses_that_are_gone_to(host: str) -> None:
    assert await allowed_address(host) == host
