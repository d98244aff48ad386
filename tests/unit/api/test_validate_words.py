"""The words of the small rules: the exact messages for what is not fine, as v1.36 has them."""

from collections.abc import Callable, Sequence

import pytest

from edgekube.api import ipaddresses, problems, validate

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric "
    "character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
KEY = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or "
    "'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
CONFIG = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
    "regex used for validation is '[-._a-zA-Z0-9]+')"
)
ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
RANGE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
ENV = "a valid environment variable name must consist only of printable ASCII characters other than '='"
LETTERS = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
ONE_LETTER = "must contain at least one letter (a-z)"


@pytest.mark.parametrize(
    ("rule", "text", "messages"),
    [
        (validate.label, "a" * 64, ["must be no more than 63 characters"]),
        (validate.label, "a.b", ["must not contain dots"]),
        (validate.label, "-a", [LABEL]),
        (validate.label, "a\n", [LABEL]),
        (validate.subdomain, "a..b", [SUBDOMAIN]),
        (validate.subdomain, "A" * 254, ["must be no more than 253 characters", SUBDOMAIN]),
        (validate.label_1035, "a" * 64, ["must be no more than 63 characters"]),
        (validate.qualified, "/a", ["prefix part must be non-empty"]),
        (validate.qualified, "A/a", [f"prefix part {SUBDOMAIN}"]),
        (validate.qualified, "a/", ["name part must be non-empty", f"name part {KEY}"]),
        (validate.qualified, "a" * 64, ["name part must be no more than 63 bytes"]),
        (
            validate.qualified,
            "a/b/c",
            [f"a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"],
        ),
        (validate.label_value, "a" * 64, ["must be no more than 63 bytes"]),
        (validate.label_value, "a b", [VALUE]),
        (validate.config_key, "a b", [CONFIG]),
        (validate.config_key, ".", ["must not be '.'"]),
        (validate.config_key, "..", ["must not be '..'"]),
        (validate.config_key, "..a", ["must not start with '..'"]),
        (validate.config_key, "a" * 254, ["must be no more than 253 characters"]),
        (validate.env_name, "a=b", [ENV]),
        (validate.env_name, "", ["environment variable name must be non-empty"]),
        (validate.port_name, "a" * 16, ["must be no more than 15 characters"]),
        (validate.port_name, "", [LETTERS, ONE_LETTER]),
        (validate.port_name, "a--b", ["must not contain consecutive hyphens"]),
        (validate.port_name, "a-", ["must not begin or end with a hyphen"]),
        (validate.path_segment, "..", ["may not be '..'"]),
        (validate.path_segment, "a/%", ["may not contain '/'", "may not contain '%'"]),
        (validate.domain, "example.com.", []),
        (validate.domain, "localhost", ["should be a domain with at least two segments separated by dots"]),
        (validate.domain, "a_b.c", [SUBDOMAIN]),
        (ipaddresses.ip, "FE80:0::1", []),
        (ipaddresses.ip, "010.0.0.1", ["must not have leading 0s"]),
        (ipaddresses.ip, "::ffff:1.2.3.4", ["must not be an IPv4-mapped IPv6 address"]),
        (ipaddresses.ip, "1.2.3", [ADDRESS]),
        (ipaddresses.cidr, "10.0.0.1/8", ["must not have bits set beyond the prefix length"]),
        (ipaddresses.cidr, "10.0.0.0/08", ["must not have leading 0s in IP or prefix length"]),
        (ipaddresses.cidr, "::ffff:10.0.0.0/120", ["must not have an IPv4-mapped IPv6 address"]),
        (ipaddresses.cidr, "10.0.0.0/33", [RANGE]),
        (ipaddresses.cidr, "10.0.0.0/²", [RANGE]),
    ],
)
def test_rules(rule: Callable[[str], Sequence[str]], text: str, messages: list[str]) -> None:
    assert list(rule(text)) == messages


def test_selectors() -> None:
    selector = {
        "matchLabels": {"a b": "c d"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["b"]},
            {"key": "a", "operator": "Like"},
            {"key": "a", "operator": "NotIn", "values": ["a b"]},
        ],
    }
    assert [(one.field, one.reason) for one in validate.label_selector("s", selector)] == [
        ("s.matchLabels", "FieldValueInvalid"),
        ("s.matchLabels", "FieldValueInvalid"),
        ("s.matchExpressions[0].values", "FieldValueRequired"),
        ("s.matchExpressions[1].values", "FieldValueForbidden"),
        ("s.matchExpressions[2].operator", "FieldValueInvalid"),
        ("s.matchExpressions[3].values[0]", "FieldValueInvalid"),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("a", '"a"'), ('"', '"\\""'), (1, "1"), (True, "true"), (None, "null"), (["a"], '["a"]'), ({"A": "<"}, '{"A":"\\u003c"}')],
)
def test_values_are_shown_as_go_shows_them(value: object, shown: str) -> None:
    assert problems.invalid("at", value, "why").message == f"Invalid value: {shown}: why"
