"""The TLS contexts of a server: what is allowed, which certificate is for whom, and clear words for files that do not fit.

A context holds for the connections that begin with it. New files make new contexts, which new connections get, so that none is ever
dropped for them; with the old contexts go the keys of their session tickets.
"""

from __future__ import annotations

import logging
import re
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any

from ..errors import TLSError
from ..settings.table import TLS
from .file_watch import FileWatch
from .server_certificate import ServerCertificate, read_certificate

logger = logging.getLogger("flask_prodserve.tls")

_FILES = (
    "TLS_CERT and TLS_KEY (--tls-cert, --tls-key) name PEM files: a certificate with its chain, and its private key."
)

_AUTHORITIES = "It names a PEM file with the certificates of authorities (--tls-client-ca)."

_SERVER_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?")
"""A host name as clients ask for it (RFC 6066, section 3): ASCII, without a dot at the end; in lower case here."""


class NamedConnection(ssl.SSLObject):
    """Knows which *server_name* its client has asked for, if it is one."""

    server_name: str | None = None


class Certificates:
    """What a server shows its clients: :attr:`context` is for the connections that begin now.

    Made of the files that *settings* names. *renews*: newer ones are taken over; False where somebody else does this. *now* tells the
    seconds since the epoch. Raises :class:`~flask_prodserve.errors.TLSError`.

    Certificates that do not hold now are shown all the same: a wrong clock stops no server.
    """

    def __init__(self, settings: TLS, *, renews: bool = True, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self._watch = FileWatch(settings.files) if renews else None  # before they are read, so that no change is missed
        self.context, self._certificates = server_context(settings)
        self._known = self.remarks()

    def remarks(self) -> list[str]:
        """What is wrong now with the dates of the certificates."""
        now = self._now()
        found = [certificate.remark(now) for certificate in self._certificates]
        return [f"TLS_CERT: {remark}" for remark in found if remark is not None]

    def check(self) -> None:
        """Take new files over, if there are any and they fit, and log which dates have become wrong by that or by the time. To be called
        every second or so, and from no thread that serves clients.
        """
        if self._watch is not None and self._watch.changed():
            self._renew()
        before, self._known = self._known, self.remarks()
        for remark in self._known:
            if remark not in before:
                logger.warning("%s", remark)

    def _renew(self) -> None:
        try:
            self.context, self._certificates = server_context(self._settings)
        except TLSError as error:
            logger.error("new certificates are not used, and the old ones still are: %s %s", error.what, error.hint)
        else:
            logger.info("new connections get the new certificates")


def server_context(settings: TLS) -> tuple[ssl.SSLContext, list[ServerCertificate]]:
    """A context that chooses, of the pairs of *settings*, the one for the name that the client asks for; the first one for any other name.
    And what the certificates say; nothing of a single one that clients would not take, which is not needed then.

    It offers HTTP/1.1 (RFC 7301). Raises :class:`~flask_prodserve.errors.TLSError` for files that are missing, unreadable, or do not
    belong together.
    """
    contexts = [_context(cert, key, settings) for cert, key in settings.pairs]
    several = len(contexts) > 1
    certificates = []
    by_name: dict[str, ssl.SSLContext] = {}
    for (cert, _), context in zip(settings.pairs, contexts, strict=True):
        try:
            certificate = read_certificate(context, cert)
        except (OSError, ValueError) as error:
            if several:
                raise TLSError(
                    f"TLS_CERT: the names in {cert} cannot be read, by which to choose between several: {error}.",
                    _FILES,
                ) from error
            continue
        certificates.append(certificate)
        if several:
            for name in certificate.names:
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
    return default, certificates


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


class _EncryptedKeyError(Exception):
    """OpenSSL asks for a passphrase."""


def _refuse_password() -> str:
    raise _EncryptedKeyError
