"""The end of a connection after its last response.

It is shut down for sending first and read until the client has closed (RFC 9112, section 9.6).
Otherwise unread bytes would make the kernel reset the connection, and the client could lose the
response.
"""

from __future__ import annotations

from ...clock import Clock, Deadline

LINGER_SECONDS = 5.0
"""How long the client may go on sending bytes that are discarded (nginx: lingering_timeout)."""

LINGER_BYTES = 1 << 21
"""How many of them are read after a refused head: what is under way until the client sees the
response, on 100 Mbit/s and 150 ms (Tomcat: maxSwallowSize, 2 MB; Go: 256 KB). The rest stays with
the client's system, which is not reset before LINGER_SECONDS have passed.

A body that follows a good head is read for all of that time: Apache's proxy passes a 413 on only
after it has sent the whole upload.
"""


class Lingering:
    """*is_bounded*: no more than LINGER_BYTES are read."""

    def __init__(self, clock: Clock, *, is_bounded: bool) -> None:
        self._deadline = Deadline(LINGER_SECONDS, clock)
        self._is_bounded = is_bounded
        self.discarded = 0
        """Bytes read so far."""

    @property
    def reads(self) -> bool:
        """Whether to go on reading."""
        return self.discarded < LINGER_BYTES or not self._is_bounded

    @property
    def is_over(self) -> bool:
        return self._deadline.passed()
