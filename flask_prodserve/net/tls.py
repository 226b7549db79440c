"""The TLS contexts of a server: what is allowed, which certificate is for which name, and clear
errors for wrong files.

A context is used for the connections that start with it. New files make new contexts for new
connections, so no connection is dropped. The keys of session tickets go away with the old contexts.
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
from ..settings.groups.network import TLS
from .file_watch import FileWatch
from .server_certificate import ServerCertificate, read_certificate

logger = logging.getLogger("flask_prodserve.tls")

_FILES = (
    "TLS_CERT and TLS_KEY (--tls-cert, --tls-key) name PEM files: a certificate with its chain, and its private key."
)

_AUTHORITIES = "It names a PEM file with the certificates of authorities (--tls-client-ca)."

_SERVER_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,252}[a-z0-9_])?")
"""A host name as clients send it (RFC 6066, section 3): ASCII, without a dot at the end; here in
lower case.
"""


class NamedConnection(ssl.SSLObject):
    """A connection that knows the *server_name* its client asked for, if it is valid."""

    server_name: str | None = None


class Certificates:
    """The server's certificates. :attr:`context` is for new connections.

    Reads the files in *settings*. *renews*: load newer files when they appear; False if another
    process does this. *now* returns the seconds since the epoch. Raises
    :class:`~flask_prodserve.errors.TLSError`.

    Certificates outside their validity period are used as well: a wrong clock must not stop a
    server.
    """

    def __init__(self, settings: TLS, *, renews: bool = True, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._now = now
        self._watch = (
            FileWatch(settings.files) if renews else None
        )  # made before the files are read, so that no change is missed
        self.context, self._certificates = server_context(settings)
        self._known = self.remarks()

    def remarks(self) -> list[str]:
        """Return what is wrong now with the dates of the certificates."""
        now = self._now()
        found = [certificate.remark(now) for certificate in self._certificates]
        return [f"TLS_CERT: {remark}" for remark in found if remark is not None]

    def check(self) -> None:
        """Load new files if there are any and they are valid, and log dates that have become wrong.

        Call it about every second, from a thread that does not serve clients.
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
            logger.error("new certificates rejected; the old ones stay in use: %s %s", error.what, error.hint)
        else:
            logger.info("loaded new certificates for new connections")


def server_context(settings: TLS) -> tuple[ssl.SSLContext, list[ServerCertificate]]:
    """Make a context that chooses the certificate of *settings* for the name that the client asks
    for, or else the first one.

    Returns it with the certificates that could be read; a single certificate may be unreadable,
    because no choice is needed. Offers HTTP/1.1 (RFC 7301). Raises
    :class:`~flask_prodserve.errors.TLSError` if files are missing, unreadable, or do not match.
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
                    f"TLS_CERT: cannot read the names in {cert}, which are needed to choose between several certificates: {error}.",
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
    """Stop Python from printing a traceback for each client that asks for a name that is not ASCII.
    Its handshake fails anyway.
    """
    original = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if not (isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes)):
            original(unraisable)

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
            f"TLS_CIPHERS: '{settings.tls_ciphers}' selects no cipher suite.",
            "`openssl ciphers -v 'ECDHE+AESGCM'` shows what such a text selects.",
        ) from error
    try:
        context.load_cert_chain(cert, key, password=_refuse_password)
    except _EncryptedKeyError as error:
        raise TLSError(
            f"TLS_KEY: {key} is encrypted, and the server cannot ask for its passphrase.",
            "Decrypt it: openssl pkey -in KEY -out NEW. Protect the file with its permissions.",
        ) from error
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TLSError(f"TLS_KEY: {key} is not the key of the certificate in {cert}.", _FILES) from error
        raise TLSError(f"TLS_CERT and TLS_KEY: {cert} and {key} are not a PEM certificate and key.", _FILES) from error
    except OSError as error:  # removed since the check
        raise TLSError(f"TLS_CERT and TLS_KEY: {cert} and {key} cannot be read: {error.strerror}.", _FILES) from error
    return context


def _verify_clients(context: ssl.SSLContext, settings: TLS) -> None:
    """Ask clients for a certificate, if the settings say so.

    A client that is refused gets an alert. The authorities in TLS_CLIENT_CA are trusted, roots or
    not.
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
