"""What is said of a certificate by its dates, and when."""

from __future__ import annotations

import pytest

from flask_prodserve.net.server_certificate import ServerCertificate

DAY = 86400
BEGINS = 1_800_000_000  # 2027-01-15 08:00:00 UTC

EARLY = "live.pem is not valid before 2027-01-15 08:00 UTC, and clients refuse it, if this clock is right"


@pytest.mark.parametrize(
    ("days", "left", "word"),
    [
        (90, 89, None),
        (90, 7.01, None),
        (90, 6.99, "expires on 2027-04-15 08:00 UTC"),
        (90, 0, "expires on 2027-04-15 08:00 UTC"),
        (90, -0.01, "expired on 2027-04-15 08:00 UTC"),
        (90, -1000, "expired on 2027-04-15 08:00 UTC"),
        (6, 6, None),
        (6, 1.51, None),
        (6, 1.49, "expires on 2027-01-21 08:00 UTC"),
    ],
)
def test_end(days: int, left: float, word: str | None) -> None:
    """A week before its end, or in the last quarter of a shorter time, a certificate is said to be late; and then to be over."""
    remark = ServerCertificate("live.pem", (), BEGINS, BEGINS + days * DAY).remark(BEGINS + (days - left) * DAY)
    if word is None:
        assert remark is None
    else:
        rest = " and should have been renewed by now" if word.startswith("expires") else ", and clients refuse it"
        assert remark == f"live.pem {word}{rest}"


def test_beginning() -> None:
    """A certificate that is still to come is said to be so."""
    certificate = ServerCertificate("live.pem", (), BEGINS, BEGINS + DAY)
    assert certificate.remark(BEGINS - 1) == EARLY
    assert certificate.remark(BEGINS) is None
