"""TLS on machines whose clock may be wrong: OpenSSL checks whose certificate it is, and we check whether it still holds.

OpenSSL compares a certificate's dates with the system clock, which says 1970 on a box without a battery and may jump. Contexts made or
adapted here do not ask it: the dates are judged against a `Clock`, which never goes below the newest time that this machine has known
(lib.timefloor). Everything else (signature, chain, purpose, host name) OpenSSL checks as ever. The authority's own dates are not judged:
it is trusted because it was pinned, not because it is young.

Two ways: `judge` makes the context refuse the peer's certificate in the handshake; `ignore_time` leaves it to who reads the certificate
(the API server: an expired client gets a 401 that says so, not a broken connection).
"""

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edgekube.lib.clock import Clock, rfc3339

NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the ssl module does not name
LEEWAY = timedelta(minutes=5)  # between clocks of two machines


class OutOfDate(ssl.SSLCertVerificationError):
    """The peer's certificate does not hold now. The message says since when, by which time, and what to do."""

    reason: str

    def __init__(self, text: str) -> None:
        super().__init__(1, text)
        self.reason = text


def ignore_time(context: ssl.SSLContext) -> ssl.SSLContext:
    """Whoever reads the peer's certificate must judge its dates: see `out_of_date`."""
    context.verify_flags |= NO_CHECK_TIME
    return context


def judge(context: ssl.SSLContext, clock: Clock) -> ssl.SSLContext:
    """Connections of `context` judge the peer's dates by `clock`: a handshake with a certificate out of date raises OutOfDate."""

    class Judged(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if why := out_of_date(self.getpeercert(), *clock.span()):
                raise OutOfDate(why)

    ignore_time(context).sslobject_class = Judged
    return context


def client_context(*, clock: Clock, ca: Path | str | bytes, credential: Path | None = None, check_hostname: bool = True) -> ssl.SSLContext:
    """To servers of our own authority (a file, or PEM as bytes); `credential` holds our key and certificate in one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = check_hostname
    if isinstance(ca, bytes):
        context.load_verify_locations(cadata=ca.decode())
    else:
        context.load_verify_locations(cafile=str(ca))
    if credential is not None:
        context.load_cert_chain(credential)
    return judge(context, clock)


def out_of_date(certificate: Mapping[str, Any] | None, earliest: datetime, latest: datetime) -> str:
    """Why a verified certificate (as `getpeercert()` decodes it) does not hold now, whichever of the two times (Clock.span) is right; "" if
    it does or there is none."""
    if not certificate:
        return ""
    not_before, not_after = validity(certificate)
    if earliest > not_after + LEEWAY:
        return f"the certificate of {_name(certificate)} expired at {rfc3339(not_after)}; it is {rfc3339(earliest)} here"
    if latest < not_before - LEEWAY:
        return f"the certificate of {_name(certificate)} holds from {rfc3339(not_before)} on; it is {rfc3339(latest)} here: set the clock"
    return ""


def validity(certificate: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """From when until when a certificate (as `getpeercert()` decodes it) holds."""
    first, last = (datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate[name]), UTC) for name in ("notBefore", "notAfter"))
    return first, last


def _name(certificate: Mapping[str, Any]) -> str:
    pairs = [pair for relative in certificate.get("subject", ()) for pair in relative]
    return next((value for name, value in pairs if name == "commonName"), "the peer")
