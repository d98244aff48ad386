"""Settings: flags over environment over file over defaults, each wrong value named with its source."""

import pytest

from edgekube.config import ConfigError, load


def test_sources_in_order():
    found = load(
        {"https-port": "1"}, environ={"EDGEKUBE_HTTPS_PORT": "2", "EDGEKUBE_MAX_PODS": "3"}, file={"max-pods": 4, "log-level": "debug"}
    )
    assert (found.https_port, found.max_pods, found.log_level, found.kubelet_port) == (1, 3, "debug", 10250)


def test_derived_values():
    found = load({"service-cidr": "10.96.0.0/12", "cluster-dns": "10.96.0.10", "node-name": "Pi"}, environ={}, file={})
    assert (found.kubernetes_address, found.node_name) == ("10.96.0.1", "pi")
    assert list(found.node_ports)[:1] == [30000]
    assert len(found.instance) == 8


@pytest.mark.parametrize("address", ["https://pi", "https://pi.local:6443/", "https://10.0.0.1:6443", "https://[fd00::1]:6443"])
def test_addresses_of_a_server(address):
    assert load({"server": address}, environ={}, file={}).server == (address,)


def test_lists_and_switches():
    found = load({"tls-san": ["a,b", "c"], "disable-agent": "true"}, environ={"EDGEKUBE_NODE_LABELS": "x=1,y=2"}, file={})
    assert (found.tls_san, found.node_labels, found.disable_agent) == (("a", "b", "c"), ("x=1", "y=2"), True)


@pytest.mark.parametrize(
    ("flags", "environ", "file", "message"),
    [
        ({"https-port": "x"}, {}, {}, "--https-port: 'x' is not a valid int"),
        ({}, {"EDGEKUBE_HTTPS_PORT": "x"}, {}, "EDGEKUBE_HTTPS_PORT: 'x'"),
        ({}, {}, {"https-port": "x"}, "https-port in the file"),
        ({}, {}, {"htps-port": 1}, "unknown setting 'htps-port'"),
        ({"disable-agent": "maybe"}, {}, {}, "--disable-agent"),
        ({"disable": "dns"}, {}, {}, "--disable: 'dns' is no part that can be left out"),
        ({"cluster-cidr": "10.0.0.0/33"}, {}, {}, "--cluster-cidr"),
        ({"cluster-cidr": "10.43.0.0/17"}, {}, {}, "overlap"),
        ({"cluster-dns": "10.44.0.10"}, {}, {}, "--cluster-dns 10.44.0.10 is not in"),
        ({"log-level": "loud"}, {}, {}, "--log-level"),
        ({"node-name": "my_pi"}, {}, {}, "--node-name: 'my_pi' is no name for a node"),
        ({"https-port": "99999"}, {}, {}, "--https-port: 99999 is out of range"),
        ({"max-pods": "-1"}, {}, {}, "--max-pods: -1 is out of range"),
        ({"cluster-dns": "dns"}, {}, {}, "--cluster-dns: 'dns' does not appear"),
        ({"bind-address": "here"}, {}, {}, "--bind-address: 'here' does not appear"),
        ({"node-ip": "192.0.2.300"}, {}, {}, "--node-ip: '192.0.2.300' does not appear"),
        ({"node-port-range": "all"}, {}, {}, "--node-port-range: 'all' is no range"),
        ({"node-port-range": "32767-30000"}, {}, {}, "--node-port-range: 32767-30000 is no range"),
        ({"node-port-range": "30000-70000"}, {}, {}, "--node-port-range: 30000-70000 is no range"),
        ({"node-labels": "zone=a,shed"}, {}, {}, "--node-labels: 'shed' is no label"),
        ({"node-taints": "shed"}, {}, {}, "--node-taints: 'shed' is no taint"),
        ({"server": "http://10.0.0.1:6443"}, {}, {}, "--server: 'http://10.0.0.1:6443' is no address such as https://HOST:6443"),
        ({"server": "https://a:6443/api"}, {}, {}, "--server"),
        ({"server": "https://a,b"}, {}, {}, "--server: 'b' is no address"),
        ({"eviction-hard-memory": "lots"}, {}, {}, "--eviction-hard-memory: 'lots' is no size"),
    ],
)
def test_wrong_settings_are_named(flags, environ, file, message):
    with pytest.raises(ConfigError, match=message):
        load(flags, environ=environ, file=file)


def test_a_new_name_of_the_node_is_the_same_installation():
    here, renamed, other = (
        load(flags, environ={}, file={}).instance for flags in ({"node-name": "a"}, {"node-name": "b"}, {"data-dir": "/x"})
    )
    assert here == renamed != other
