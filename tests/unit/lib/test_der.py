"""What is read out of a certificate without the library is what the library reads."""

import ssl
from datetime import UTC, datetime

import pytest

from edgekube.lib import csr, der, pki
from edgekube.lib.pki import Subject


@pytest.mark.parametrize("year", [2026, 2049, 2051, 2300])
def test_dates_and_key(year):
    now = datetime(year, 2, 3, 4, 5, 6, tzinfo=UTC)
    authority = pki.create_authority("ca", now)
    key = pki.create_key()
    made = pki.sign(authority, Subject("n"), pki.load_key(key).public_key(), now)
    raw = ssl.PEM_cert_to_DER_cert(made.decode())
    known = pki.load_certificate(made)
    assert der.dates(raw) == (known.not_valid_before_utc, known.not_valid_after_utc)
    assert der.key_digest(raw) == csr.parse(csr.make(key, Subject("n"))).key_digest


@pytest.mark.parametrize("cut", [0, 1, 10, 60, 150])
def test_a_cut_certificate_is_refused(cut):
    raw = ssl.PEM_cert_to_DER_cert(pki.certificate_pem(pki.create_authority("ca", datetime(2026, 1, 1, tzinfo=UTC))).decode())
    with pytest.raises(ValueError):
        der.dates(raw[:cut])
