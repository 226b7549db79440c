"""Reads the names and the validity period of the server's own certificates."""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass
from typing import Any

SOON_SECONDS = 7 * 86400
"""How long before the end of a certificate to warn. Tools renew certificates weeks before."""

SOON_SHARE = 4
"""For a certificate of less than four weeks, warn in the last quarter: those of six days are
renewed halfway.
"""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h); Python does not name it."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate in the file *path*: its *names* in lower case, and its validity period in
    seconds since the epoch.
    """

    path: str
    names: tuple[str, ...]
    begins: int
    ends: int

    def remark(self, now: float) -> str | None:
        """Return what is wrong with its dates at *now*, or None. The text is the same while the
        problem is the same.
        """
        if now > self.ends:
            return f"{self.path} expired on {_written(self.ends)}, and clients refuse it"
        if now < self.begins:
            return f"{self.path} is not valid before {_written(self.begins)}, and clients refuse it, if this clock is right"
        if now > self.ends - min(SOON_SECONDS, (self.ends - self.begins) / SOON_SHARE):
            return f"{self.path} expires on {_written(self.ends)} and should have been renewed by now"
        return None


def read_certificate(context: ssl.SSLContext, path: str) -> ServerCertificate:
    """Read the certificate of *context*, which comes from the file *path*. Raises OSError or
    ValueError.

    Python shows only the certificate of the other side. So the context shakes hands with a client
    that trusts exactly this certificate, however old.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    with open(path, encoding="ascii", errors="replace") as file:
        client.load_verify_locations(cadata=_first_certificate(file.read()))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    answering = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, answering) * 3:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    found: dict[str, Any] | None = asking.getpeercert()
    assert found is not None  # a server always sends one
    return ServerCertificate(
        path,
        tuple(_names(found)),
        ssl.cert_time_to_seconds(found["notBefore"]),
        ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _names(found: dict[str, Any]) -> list[str]:
    """Return its DNS names (RFC 9525, section 6); for an old certificate without any, its common
    name.
    """
    names = [value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    if not found.get("subjectAltName"):
        names = [value for part in found.get("subject", ()) for kind, value in part if kind == "commonName"]
    return [name.lower() for name in names]


def _first_certificate(text: str) -> str:
    """Return the first certificate in *text*, the server's own (RFC 8446, section 4.4.2)."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return begin + text.partition(begin)[2].partition(end)[0] + end + "\n"


def _written(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(second))
