"""Certificates for tests, as the openssl program makes them; and its own client, which says what it has seen."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from programs import program


def openssl(*arguments: str, cwd: Path | None = None, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run ``openssl`` with *given* as its input; what it has printed is the result's ``stdout``, both streams of it."""
    return subprocess.run(
        [program("openssl"), *arguments],
        cwd=cwd,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )


# Python's clients check strictly since 3.13. Some tests serve with such a certificate as well.
AUTHORITY = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,digitalSignature\n"


@dataclass(frozen=True)
class Pair:
    """PEM files."""

    cert: str
    key: str

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": self.cert, "tls_key": self.key}


EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
RSA = ("rsa:2048",)


def make(
    folder: Path,
    name: str,
    *,
    subject: str = "",
    names: str = "",
    by: Pair | None = None,
    days: int = 2,
    key: tuple[str, ...] = EC,
) -> Pair:
    """A certificate with the *subject* that OpenSSL's ``-subj`` takes, for *names* (``DNS:a,IP:127.0.0.1``), signed *by* an authority or
    itself, and its key of the kind *key*; NAME.pem and NAME.key in *folder*. It is over where *days* is negative.
    """
    folder.mkdir(exist_ok=True, parents=True)
    pair = Pair(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    arguments = ["-newkey", *key, "-nodes", "-utf8", "-keyout", pair.key]
    arguments += ["-subj", subject or f"/CN={name}"]
    if names:
        arguments += ["-addext", f"subjectAltName={names}"]
    request = openssl("req", "-new", "-batch", *arguments, "-out", f"{pair.cert}.request")
    assert request.returncode == 0, request.stdout
    signs = ["-CA", by.cert, "-CAkey", by.key, "-CAcreateserial"] if by else ["-signkey", pair.key]
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={names}\n" if names else AUTHORITY if by is None else "")
    signed = openssl(
        *("x509", "-req", "-in", f"{pair.cert}.request", *signs, "-days", str(days), "-sha256", "-out", pair.cert),
        *("-extfile", str(extensions)),
    )
    assert signed.returncode == 0, signed.stdout
    return pair
