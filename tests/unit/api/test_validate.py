"""The small rules: which names, keys and addresses pass, and which rule a bad one breaks."""

from collections.abc import Callable, Sequence

import pytest

from edgekube.api import ipaddresses, validate

LONG = "a" * 64
RULES: list[tuple[Callable[[str], Sequence[str]], list[str], list[str]]] = [
    (validate.subdomain, ["a", "a.b", "1-2.3", "a" * 253], ["", "A", "a_b", "-a", "a.", ".a", "a..b", "a" * 254, "a\n"]),
    (validate.subdomain_with_underscore, ["a_b", "a.b_c"], ["", "A", "_a", "a_"]),
    (validate.label, ["a", "1", "a-b", "a" * 63], ["", "A", "a.b", "-a", "a-", LONG, "a\n"]),
    (validate.label_1035, ["a", "a1", "a-1"], ["", "1", "1a", "A", "a-", LONG]),
    (validate.path_segment, ["a", "System:x", "a b", "..."], [".", "..", "a/b", "a%b"]),
    (validate.qualified, ["a", "A.b_c-1", "example.com/A", "a" * 63], ["", "/a", "a/", "a/b/c", "A/b", "-a", "a-", LONG, f"b/{LONG}"]),
    (validate.label_value, ["", "a", "A.b_c-1", "a" * 63], ["-", "a-", "a b", "a/b", LONG]),
    (validate.config_key, ["a", ".a", "A_b-c.d", "a" * 253], ["", "a/b", ".", "..", "..a", "a b", "a" * 254]),
    (validate.env_name, ["A", "a.b-c", "1 2", "~"], ["", "a=b", "ä", "a\n"]),
    (validate.port_name, ["a", "http", "a-1", "a" * 15], ["", "1", "a" * 16, "A", "a--b", "-a", "a-", "a_b"]),
    (ipaddresses.ip, ["10.0.0.1", "::1", "2001:db8::1"], ["", "10.0.0", "10.0.0.256", "010.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "a"]),
    (
        ipaddresses.cidr,
        ["10.0.0.0/8", "::/0", "2001:db8::/32"],
        ["", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/08", "::ffff:10.0.0.0/120"],
    ),
]


@pytest.mark.parametrize(("rule", "good", "bad"), RULES)
def test_rules(rule: Callable[[str], Sequence[str]], good: list[str], bad: list[str]) -> None:
    assert [text for text in good if rule(text)] == []
    assert [text for text in bad if not rule(text)] == []


@pytest.mark.parametrize(("number", "fine"), [(1, True), (65535, True), (0, False), (65536, False), (-1, False)])
def test_port_numbers(number: int, fine: bool) -> None:
    assert list(validate.port_number(number)) == ([] if fine else ["must be between 1 and 65535, inclusive"])


def test_messages_are_upstreams() -> None:
    assert list(validate.label("A")) == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
        "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]
    assert list(validate.subdomain("A")) == [
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'example.com', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    ]
    assert list(validate.config_key("a b")) == [
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
        "regex used for validation is '[-._a-zA-Z0-9]+')"
    ]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", ""),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ],
)
def test_addresses_for_traffic(address: str, why: str) -> None:
    found = [one.message for one in ipaddresses.non_special_ip("f", address)]
    assert found == ([f'Invalid value: "{address}": {why}'] if why else [])


@pytest.mark.parametrize(
    ("selector", "field", "message"),
    [
        ({"matchLabels": {"a/b/c": "x"}}, "s.matchLabels", None),
        ({"matchLabels": {"a": "-"}}, "s.matchLabels", None),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "s.matchExpressions[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]},
            "s.matchExpressions[0].values",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Near"}]},
            "s.matchExpressions[0].operator",
            'Invalid value: "Near": not a valid selector operator',
        ),
    ],
)
def test_selectors(selector: dict[str, object], field: str, message: str | None) -> None:
    found = list(validate.label_selector("s", selector))
    assert [one.field for one in found] == [field]
    assert message is None or found[0].message == message
