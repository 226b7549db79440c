"""What the server's own certificates say: the names that they are for, and the time in which they hold."""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass
from typing import Any

SOON_SECONDS = 7 * 86400
"""How long before its end a certificate is warned of. What renews certificates does so weeks before."""

SOON_SHARE = 4
"""One that holds for less than four weeks is warned of in the last quarter of its time: those for six days are renewed halfway."""

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h); Python does not name it."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """The certificate in the file *path*: its *names* in lower case, and from when to when it holds, in seconds since the epoch."""

    path: str
    names: tuple[str, ...]
    begins: int
    ends: int

    def remark(self, now: float) -> str | None:
        """What is wrong with its dates, if anything is. The same text as long as it is the same that is wrong."""
        if now > self.ends:
            return f"{self.path} expired on {_written(self.ends)}: clients refuse it"
        if now < self.begins:
            return f"{self.path} is not valid before {_written(self.begins)}: clients refuse it, if this clock is right"
        if now > self.ends - min(SOON_SECONDS, (self.ends - self.begins) / SOON_SHARE):
            return f"{self.path} expires on {_written(self.ends)}: it should have been renewed by now"
        return None


def read_certificate(context: ssl.SSLContext, path: str) -> ServerCertificate:
    """The certificate of *context*, which is from the file *path*. Raises OSError or ValueError.

    Python shows certificates of the other side only. So the context talks to a client that trusts this very certificate, however old.
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
    assert found is not None  # a server has one
    return ServerCertificate(
        path,
        tuple(_names(found)),
        ssl.cert_time_to_seconds(found["notBefore"]),
        ssl.cert_time_to_seconds(found["notAfter"]),
    )


def _names(found: dict[str, Any]) -> list[str]:
    """RFC 9525, section 6, and the common name where it is so old that it has no others."""
    names = [value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    if not found.get("subjectAltName"):
        names = [value for part in found.get("subject", ()) for kind, value in part if kind == "commonName"]
    return [name.lower() for name in names]


def _first_certificate(text: str) -> str:
    """The server's own comes first (RFC 8446, section 4.4.2)."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return begin + text.partition(begin)[2].partition(end)[0] + end + "\n"


def _written(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(second))
