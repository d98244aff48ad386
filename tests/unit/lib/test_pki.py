"""Certificates: what they say, when they are renewed, and that the machine's clock does not fool them."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgekube.lib import pki
from edgekube.lib.pki import Subject, Validity

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("days", "due"),
    [(0, False), (200, False), (243, False), (244, True), (364, True), (366, True), (-10, False), (-400, True)],
)
def test_renewal_is_due_after_two_thirds_of_the_life_and_outside_of_it(days: int, due: bool) -> None:
    validity = Validity(NOW, NOW - 365 * DAY, NOW + 365 * DAY)
    assert pki.needs_renewal(validity, NOW + days * DAY) is due


def test_leaf_says_who_it_is_and_openssl_trusts_it(tmp_path: Path) -> None:
    authority = pki.create_authority("ca", NOW)
    pem = pki.issue(authority, Subject("api", ("a", "b"), ("localhost",), ("127.0.0.1", "::1"), server=True), NOW)
    (tmp_path / "ca.crt").write_bytes(pki.certificate_pem(authority))
    (tmp_path / "leaf.pem").write_bytes(pem)
    shown = subprocess.run(
        ["openssl", "verify", "-purpose", "sslserver", "-CAfile", tmp_path / "ca.crt", tmp_path / "leaf.pem"], capture_output=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "leaf.pem")  # one file is both key and certificate
    refused = subprocess.run(
        ["openssl", "verify", "-purpose", "sslclient", "-CAfile", tmp_path / "ca.crt", tmp_path / "leaf.pem"], capture_output=True, check=False
    )
    assert refused.returncode != 0, "a server's certificate must not speak for a client"


def test_a_certificate_made_with_a_clock_in_1970_still_holds_today() -> None:
    stuck = datetime(1970, 1, 2, tzinfo=UTC)
    authority = pki.create_authority("ca", stuck)
    leaf = pki.validity_of(pki.issue(authority, Subject("x", client=True), stuck))
    assert leaf.not_before <= stuck
    assert leaf.not_after >= pki.CLOCK_FLOOR + 300 * DAY


def test_renewed_authority_keeps_its_key_so_that_old_certificates_stay_good() -> None:
    old = pki.create_authority("ca", NOW)
    new = pki.create_authority("ca", NOW + 3000 * DAY, key_pem=pki.key_pem(old))
    assert pki.key_pem(new) == pki.key_pem(old)
    assert pki.load_certificate(new).not_valid_after_utc > pki.load_certificate(old).not_valid_after_utc


def test_secret_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "k" / "key"
    pki.write_secret(path, b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert pki.read_secret(path) == b"x"
    assert path.stat().st_mode & 0o777 == 0o600
    assert pki.read_secret(tmp_path / "none") is None


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(ValueError):
        pki.load_key(b"nonsense")
    with pytest.raises(ValueError):
        pki.certificate_pem(b"nonsense")
