"""The TLS context: good files work, others are refused with the file's and the setting's name."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from flask_prodserve.errors import ExitCode, TLSError
from flask_prodserve.net.tls import server_context
from flask_prodserve.settings.table import TLS


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
    openssl(*["pkey", "-in", "one.key", "-aes256", "-passout", "pass:secret", "-out", "encrypted.key"])
    (folder / "text").write_text("this is no PEM file")
    return folder


def test_good_files(folder: Path) -> None:
    """The context speaks TLS 1.2 and newer, and asks no client for a certificate."""
    context = server_context(TLS((str(folder / "one.pem"),), (str(folder / "one.key"),)))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("missing", "one.key", ("TLS_CERT", "missing", "No such file")),
        ("one.pem", "missing", ("TLS_KEY", "missing", "No such file")),
        (".", "one.key", ("TLS_CERT", "directory")),
        ("text", "one.key", ("TLS_CERT", "no PEM")),
        ("one.pem", "text", ("TLS_KEY", "no PEM")),
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
