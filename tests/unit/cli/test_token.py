"""`edgekube token`: what it takes from a command line, and what it shows."""

from datetime import UTC, datetime, timedelta

import pytest

from edgekube.api import bootstraptokens
from edgekube.cli.main import Failure
from edgekube.cli.token import id_of, parse_duration, parse_usages, row

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", timedelta(hours=24)),
        ("1h30m", timedelta(minutes=90)),
        ("24h0m0s", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("0", None),
    ],
)
def test_durations(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "24", "h", "1h ", "-1h", "1w", "0s", "99999999d"])
def test_what_is_no_duration(text):
    with pytest.raises(Failure, match="--ttl: "):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, ("signing", "authentication"))),
        ("1", (1, ("signing", "authentication"))),
        ("authentication,3", (3, ("authentication",))),
        ("signing", (0, ("signing",))),
    ],
)
def test_usages(text, expected):
    assert parse_usages(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "fishing", "1,2", "1.5"])
def test_what_is_no_usage(text):
    with pytest.raises(Failure, match="--usages: "):
        parse_usages(text)


def test_a_token_is_known_by_its_id_or_whole():
    assert id_of("abcdef") == id_of("abcdef.0123456789abcdef") == id_of("EK1" + "0" * 64 + "::abcdef.0123456789abcdef") == "abcdef"
    with pytest.raises(Failure):
        id_of("ABC")


def test_rows():
    bearer = "abcdef.0123456789abcdef"
    token = bootstraptokens.read(bootstraptokens.secret_of(bearer, now=NOW, uses=2, node="pi", description="attic"))
    assert row(token, NOW) == ("abcdef", "24h", "2026-11-21T12:00:00Z", "2", "pi", "attic")
    assert row(token, NOW + timedelta(days=2))[1] == "<expired>"
    forever = bootstraptokens.read(bootstraptokens.secret_of(bearer, now=NOW, life=None))
    assert row(forever, NOW) == ("abcdef", "<forever>", "<never>", "<unlimited>", "<any>", "<none>")
