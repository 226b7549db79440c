"""Names of certificates as text: RFC 4514, and nothing in it that could be taken for something else."""

from __future__ import annotations

import pytest

from flask_prodserve.net.client_certificates import distinguished_name


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((), ""),
        (((("countryName", "DE"),), (("commonName", "a"),)), "CN=a,C=DE"),
        (((("organizationalUnitName", "a"), ("commonName", "b")),), "OU=a+CN=b"),
        (((("emailAddress", "a@b"),),), "emailAddress=a@b"),
        (((("commonName", 'a,CN=admin+x="y"<>;\\'),),), r"CN=a\,CN\=admin\+x\=\"y\"\<\>\;" + "\\\\"),
        (((("commonName", " a b "),),), r"CN=\ a b\ "),
        (((("commonName", "  "),),), r"CN=\ \ "),
        (((("commonName", "#a#"),),), r"CN=\#a#"),
        (((("commonName", "ü\n\0"),),), r"CN=\C3\BC\0A\00"),
    ],
)
def test_distinguished_names(subject: tuple[tuple[tuple[str, str], ...], ...], text: str) -> None:
    """The last part comes first; what has a meaning is escaped, and so is all that is not printable ASCII."""
    assert distinguished_name(subject) == text
    assert text.isascii()
    assert text.isprintable()
