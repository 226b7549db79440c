"""A loop for tests of single channels."""

from __future__ import annotations


class ByHand:
    """Does nothing by itself: the test decides what happens next."""

    def nothing(self, *channel: object) -> None:
        pass

    defers_accepting = False
    watch = update_interest = forget = give_way = submit = soon = nothing
