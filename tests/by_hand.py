"""A loop for tests of single channels."""

from __future__ import annotations


class ByHand:
    """Does nothing by itself: the test decides what happens next."""

    def nothing(self, *channel: object) -> None:
        pass

    watch = update_interest = forget = give_way = move_to_stream_budget = submit = nothing
