"""The TLS context: good files work, others are refused with the file's and the setting's name."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from flask_prodserve.errors import ExitCode, TLSError
from flask_prodserve.net.tls import ignore_bad_names, server_context
from flask_prodserve.settings.groups.network import TLS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("one", "other"):
        openssl(
            *[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ],
            *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
        )
    openssl(
        *["req", "-x509", "-key", "one.key", "-days", "2", "-subj", "/CN=client", "-out", "client.pem"],
        *["-addext", "extendedKeyUsage=clientAuth"],
    )
    openssl(*["pkey", "-in", "one.key", "-aes256", "-passout", "pass:secret", "-out", "encrypted.key"])
    (folder / "text").write_text("this is no PEM file")
    return folder


def test_good_files(folder: Path) -> None:
    """The context speaks TLS 1.2 and newer, and asks no client for a certificate."""
    context, [certificate] = server_context(TLS((str(folder / "one.pem"),), (str(folder / "one.key"),)))
    assert (certificate.path, certificate.names) == (str(folder / "one.pem"), ("localhost",))
    assert certificate.ends - certificate.begins == 2 * 86400
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("missing", "one.key", ("TLS_CERT", "missing", "No such file")),
        ("one.pem", "missing", ("TLS_KEY", "missing", "No such file")),
        (".", "one.key", ("TLS_CERT", "directory")),
        ("text", "one.key", ("TLS_CERT", "not a PEM")),
        ("one.pem", "text", ("TLS_KEY", "not a PEM")),
        ("one.pem", "other.key", ("TLS_KEY", "other.key", "not the key of")),
        ("one.pem", "encrypted.key", ("TLS_KEY", "encrypted.key", "is encrypted")),
    ],
)
def test_bad_files(folder: Path, cert: str, key: str, words: tuple[str, ...]) -> None:
    """What is wrong with which file is said in one sentence, and nobody is asked for a passphrase."""
    with pytest.raises(TLSError) as caught:
        server_context(TLS((str(folder / cert),), (str(folder / key),)))
    assert all(word in caught.value.what for word in words), caught.value.what
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


def test_certificate_that_is_for_no_server(folder: Path) -> None:
    """What clients do not take cannot be read: alone it is served, and nothing is said of it; it cannot be one of several."""
    cert, key = str(folder / "client.pem"), str(folder / "one.key")
    assert server_context(TLS((cert,), (key,)))[1] == []
    with pytest.raises(TLSError, match=r"TLS_CERT: cannot read the names in .*client\.pem"):
        server_context(TLS((cert, str(folder / "one.pem")), (key, key)))


def test_suites_that_are_none(folder: Path) -> None:
    """TLS_CIPHERS that mean nothing to OpenSSL are refused."""
    files = ((str(folder / "one.pem"),), (str(folder / "one.key"),))
    with pytest.raises(TLSError, match="TLS_CIPHERS: 'ROT13' selects no cipher suite"):
        server_context(TLS(*files, tls_ciphers="ROT13"))


@pytest.mark.parametrize("name", ["text", "missing", "."])
def test_authorities_that_are_none(folder: Path, name: str) -> None:
    """TLS_CLIENT_CA that cannot be read, or has no certificates, is refused."""
    files = ((str(folder / "one.pem"),), (str(folder / "one.key"),))
    with pytest.raises(TLSError, match="TLS_CLIENT_CA"):
        server_context(TLS(*files, tls_client_ca=str(folder / name)))


def test_names_that_are_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A client that asks for a name that is not ASCII ends its handshake, and Python is kept from writing about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
        ignore_bad_names()
        context, _ = server_context(TLS((str(folder / "one.pem"),), (str(folder / "one.key"),)))
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl.create_default_context().wrap_bio(to_client, to_server, server_hostname="name.example")
        server = context.wrap_bio(to_server, to_client, server_side=True)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        to_server.write(to_server.read().replace(b"name.example", b"n\xffme.example"))
        with pytest.raises(ssl.SSLError):
            server.do_handshake()
    assert capsys.readouterr().err == ""
