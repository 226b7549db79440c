"""The environment variables that describe a TLS connection to the app, named as in Apache's
mod_ssl.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

_SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
"""RFC 4514, section 3."""

# RFC 4514, section 2.4: escaped anywhere, at the start, or at the end.
_SPECIAL = re.compile(r'[\\",+;<>=]|^[ #]| $')
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


def variables(connection: ssl.SSLObject, name: str | None) -> dict[str, str]:
    """Return the WSGI variables for the TLS *connection*, after its handshake. The client asked for
    the server *name*.

    If Python cannot read the client's certificate, it has a fingerprint, but no subject and no
    serial number. After a TLS 1.2 session was resumed, the server name is left out: OpenSSL returns
    the name of the first handshake, not of this one (SSL_get_servername(3)).
    """
    cipher = connection.cipher()
    found = {
        "SSL_PROTOCOL": connection.version() or "",
        "SSL_CIPHER": cipher[0] if cipher else "",
        "SSL_CLIENT_VERIFY": "NONE",
    }
    if name is not None and not (connection.session_reused and connection.version() != "TLSv1.3"):
        found["SSL_TLS_SNI"] = name
    encoded = connection.getpeercert(binary_form=True)
    if encoded:
        found["SSL_CLIENT_VERIFY"] = "SUCCESS"
        found["SSL_CLIENT_FINGERPRINT"] = hashlib.sha256(encoded).hexdigest()
        # Python reads all of a certificate or nothing, and fails if its alternative names are not
        # UTF-8.
        with contextlib.suppress(UnicodeDecodeError):
            certificate: dict[str, Any] = connection.getpeercert() or {}
            found["SSL_CLIENT_S_DN"] = distinguished_name(certificate.get("subject", ()))
            found["SSL_CLIENT_M_SERIAL"] = certificate.get("serialNumber", "")
    return found


def distinguished_name(subject: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Write a *subject* of :meth:`ssl.SSLObject.getpeercert` as in RFC 4514: the last part first,
    in ASCII.
    """
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in reversed(list(subject))
    )


def _escaped(value: str) -> str:
    value = _SPECIAL.sub(lambda match: "\\" + match[0], value)
    return _NOT_PLAIN.sub(lambda match: "".join(f"\\{byte:02X}" for byte in match[0].encode()), value)
