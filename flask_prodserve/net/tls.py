"""The TLS contexts of a server: what is allowed, which certificate is for whom, and clear words for files that do not fit.

A context holds for the connections that begin with it. New files make new contexts, which new connections get, so that none is ever
dropped for them; with the old contexts go the keys of their session tickets.
"""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import sys
from typing import Any

from ..errors import TLSError
from ..settings.table import TLS
from .file_watch import FileWatch

logger = logging.getLogger("flask_prodserve.tls")

_FILES = (
    "TLS_CERT and TLS_KEY (--tls-cert, --tls-key) name PEM files: a certificate with its chain, and its private key."
)

_AUTHORITIES = "It names a PEM file with the certificates of authorities (--tls-client-ca)."

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h); Python does not name it."""

_SERVER_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?")
"""A host name as clients ask for it (RFC 6066, section 3): ASCII, without a dot at the end; in lower case here."""


class NamedConnection(ssl.SSLObject):
    """Knows which *server_name* its client has asked for, if it is one."""

    server_name: str | None = None


class Certificates:
    """What a server shows its clients: :attr:`context` is for the connections that begin now.

    Made of the files that *settings* names. *renews*: newer ones are taken over; False where somebody else does this.
    Raises :class:`~flask_prodserve.errors.TLSError`.
    """

    def __init__(self, settings: TLS, *, renews: bool = True) -> None:
        self._settings = settings
        self._watch = FileWatch(settings.files) if renews else None  # before they are read, so that no change is missed
        self.context = server_context(settings)

    def look(self) -> None:
        """Take new files over, if there are any and they fit. To be called every second or so, and from no thread that serves clients."""
        if self._watch is None or not self._watch.changed():
            return
        try:
            self.context = server_context(self._settings)
        except TLSError as error:
            logger.error("new certificates are not used, and the old ones still are: %s %s", error.what, error.hint)
        else:
            logger.info("new connections get the new certificates")


def server_context(settings: TLS) -> ssl.SSLContext:
    """A context that chooses, of the pairs of *settings*, the one for the name that the client asks for; the first one for any other name.

    It offers HTTP/1.1 (RFC 7301). Raises :class:`~flask_prodserve.errors.TLSError` for files that are missing, unreadable, or do not
    belong together.
    """
    contexts = [_context(cert, key, settings) for cert, key in settings.pairs]
    by_name: dict[str, ssl.SSLContext] = {}
    if len(contexts) > 1:
        for (cert, _), context in zip(settings.pairs, contexts, strict=True):
            for name in _names(context, cert):
                by_name.setdefault(name, context)

    def choose(connection: Any, name: str | None, context: ssl.SSLContext) -> None:
        name = (name or "").lower()
        if _SERVER_NAME.fullmatch(name):
            connection.server_name = name
            if by_name:
                connection.context = by_name.get(name) or by_name.get(f"*.{name.partition('.')[2]}") or context

    default = contexts[0]
    default.sslobject_class = NamedConnection
    default.sni_callback = choose
    for context in contexts:
        _verify_clients(context, settings)
    return default


def ignore_bad_names() -> None:
    """Have Python not write a traceback for every client that asks for a name which is not ASCII, and whose handshake it ends."""
    shows = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)):
            shows(unraisable)

    sys.unraisablehook = hook


def _context(cert: str, key: str, settings: TLS) -> ssl.SSLContext:
    for setting, path in (("TLS_CERT", cert), ("TLS_KEY", key)):
        _check_readable(setting, path, _FILES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = getattr(ssl.TLSVersion, f"TLSv{settings.tls_min_version.replace('.', '_')}")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.set_ciphers(settings.tls_ciphers)
    except ssl.SSLError as error:
        raise TLSError(
            f"TLS_CIPHERS: no suite is meant by '{settings.tls_ciphers}'.",
            "`openssl ciphers -v 'ECDHE+AESGCM'` shows what such a text means.",
        ) from error
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _EncryptedKeyError as error:
        raise TLSError(
            f"TLS_KEY: {key} is encrypted, and nobody is there to type its passphrase.",
            "Decrypt it: openssl pkey -in KEY -out NEW. Protect the file by its permissions.",
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TLSError(f"TLS_KEY: {key} is not the key of the certificate in {cert}.", _FILES) from error
        raise TLSError(f"TLS_CERT and TLS_KEY: {cert} and {key} are no PEM certificate and key.", _FILES) from error
    except OSError as error:  # it has gone since it was looked at
        raise TLSError(f"TLS_CERT and TLS_KEY: {cert} and {key} cannot be read: {error.strerror}.", _FILES) from error
    return context


def _verify_clients(context: ssl.SSLContext, settings: TLS) -> None:
    """Ask clients for a certificate, if they are to have one.

    Refused clients get an alert. That an authority is named is enough for it to be trusted, whether it is a root or not.
    """
    if settings.client_cert == "none" or settings.tls_client_ca is None:
        return
    _check_readable("TLS_CLIENT_CA", settings.tls_client_ca, _AUTHORITIES)
    context.verify_mode = ssl.CERT_OPTIONAL if settings.client_cert == "optional" else ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(settings.tls_client_ca)
    except OSError as error:  # ssl.SSLError is one
        raise TLSError(f"TLS_CLIENT_CA: {settings.tls_client_ca} has no PEM certificates.", _AUTHORITIES) from error


def _check_readable(setting: str, path: str, hint: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TLSError(f"{setting}: {path} cannot be read: {error.strerror}.", hint) from error


def _names(context: ssl.SSLContext, cert: str) -> list[str]:
    """The names that the certificate of *context*, from the file *cert*, is for, in lower case: RFC 9525, section 6, and the common name
    where it is so old that it has no others.

    Python shows certificates of the other side only. So the context talks to a client that trusts this very certificate, however old.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        with open(cert, encoding="ascii", errors="replace") as file:
            client.load_verify_locations(cadata=_first_certificate(file.read()))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = client.wrap_bio(to_client, to_server)
        answering = context.wrap_bio(to_server, to_client, server_side=True)
        for side in (asking, answering) * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        found: dict[str, Any] = asking.getpeercert() or {}
    except (OSError, ValueError) as error:
        raise TLSError(
            f"TLS_CERT: the names in {cert} cannot be read, by which to choose between several: {error}.", _FILES
        ) from error
    names = [value for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    if not found.get("subjectAltName"):
        names = [value for part in found.get("subject", ()) for kind, value in part if kind == "commonName"]
    return [name.lower() for name in names]


def _first_certificate(text: str) -> str:
    """The server's own comes first (RFC 8446, section 4.4.2)."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    return begin + text.partition(begin)[2].partition(end)[0] + end + "\n"


class _EncryptedKeyError(Exception):
    """OpenSSL asks for a passphrase."""


def _refuse_password() -> str:
    raise _EncryptedKeyError
