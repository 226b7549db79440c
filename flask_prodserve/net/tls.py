"""The TLS context of a server: what is allowed, and clear words for files that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import TLSError

if TYPE_CHECKING:
    import ssl

_FILES = "TLS_CERT and TLS_KEY (--tls-cert, --tls-key) name two PEM files: the certificate with its chain, and its private key."


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 and newer with Python's secure defaults, offering HTTP/1.1 (RFC 7301), for the PEM files *cert* and *key*.

    Raises :class:`~flask_prodserve.errors.TLSError` for files that are missing, unreadable, or do not belong together.
    """
    try:
        import ssl
    except ImportError as error:
        raise TLSError("This Python was built without TLS.", "Use another one, or end TLS in a proxy.") from error
    for setting, path in (("TLS_CERT", cert), ("TLS_KEY", key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise TLSError(f"{setting}: {path} cannot be read: {error.strerror}.", _FILES) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
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
    return context


class _EncryptedKeyError(Exception):
    """OpenSSL asks for a passphrase."""


def _refuse_password() -> str:
    raise _EncryptedKeyError
